"""The images of one prompt on their way into the model: numbers, then features, then nothing."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from engine.scheduling.admission import Stretch

# What one pass of a vision tower is called with.
Pixels = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Positions:
    """Where the tokens of a prompt stand for M-RoPE, (3, tokens) in time, height and width; every token after the
    prompt stands `delta` further than its index, in all three."""

    of_prompt: torch.Tensor
    delta: int


class ImagePrompt:
    """A prompt with images: its token ids, the places among them that stand for images, and what comes there.

    The pixels of one image after another become features (`put`), and each is let go then. Features are (tokens,
    layers, width): what comes in the place of embeddings, and what is added after each of the first text layers, if
    the model does so. With `looks_ahead` the tokens of one image see each other both ways. Touched by the thread that
    prepared it, and once submitted by the worker alone.
    """

    def __init__(
        self,
        token_ids: list[int],
        places: Sequence[int],
        passes: Sequence[Pixels],
        positions: Positions | None,
        *,
        looks_ahead: bool = False,
    ) -> None:
        self.token_ids = token_ids
        self._places = places
        self._passes = deque(passes)
        self._positions = positions
        self._features: list[torch.Tensor] = []
        self._wholes = tuple(_runs(places)) if looks_ahead else ()

    @property
    def next_pixels(self) -> Pixels | None:
        """What the vision tower has to be shown next; None once all of it was."""
        return self._passes[0] if self._passes else None

    @property
    def num_image_tokens(self) -> int:
        return len(self._places)

    @property
    def wholes(self) -> tuple[Stretch, ...]:
        """Where tokens see each other both ways and have to be run together; none once the prompt is computed."""
        return self._wholes

    @property
    def cuts(self) -> tuple[int, ...]:
        """Where to cut the prompt to see what that does to its images: within them, or at one's ends where it may not
        be cut."""
        return self._wholes[0] if self._wholes else (self._places[len(self._places) // 2],)

    def put(self, features: torch.Tensor) -> None:
        """Take the features (tokens, layers, width) of `next_pixels`.

        Raises:
            ValueError: all are there, and they are not as many as the places that wait for them.
        """
        self._passes.popleft()
        self._features.append(features)
        if not self._passes:
            self._features = [torch.cat(self._features)]
            if len(self._features[0]) != len(self._places):
                raise ValueError(
                    f"the vision tower gave {len(self._features[0])} features for {len(self._places)} image tokens"
                )

    def features(self, start: int, stop: int) -> tuple[list[int], torch.Tensor] | None:
        """Of the tokens `start:stop` the rows that stand for images, counted from `start`, and what comes there."""
        first, last = bisect_left(self._places, start), bisect_left(self._places, stop)
        if first == last:
            return None
        return [place - start for place in self._places[first:last]], self._features[0][first:last]

    def positions(self, start: int, stop: int) -> torch.Tensor | None:
        """Of the tokens `start:stop`, (3, tokens); None where they are their indices."""
        if self._positions is None:
            return None
        of_prompt, delta = self._positions.of_prompt, self._positions.delta
        if stop <= of_prompt.shape[1]:
            return of_prompt[:, start:stop]
        after = torch.arange(max(start, of_prompt.shape[1]), stop).expand(3, -1) + delta
        return torch.cat((of_prompt[:, start:], after), dim=1)

    def drop(self) -> None:
        """Let pixels and features go, once the whole prompt is computed or nobody waits for it. Positions stay."""
        self._passes.clear()
        self._features.clear()
        self._places = self._wholes = ()


def _runs(places: Sequence[int]) -> Iterator[Stretch]:
    """Places that follow each other."""
    for _, numbered in groupby(enumerate(places), lambda pair: pair[1] - pair[0]):
        run = [place for _, place in numbered]
        yield run[0], run[-1] + 1
