"""The vision tower's turns: one image a pass, before the first tokens of its prompt are run.

A pass cannot be cut, so answers that are being written wait for it. One image at a time keeps that wait, and the
memory of a pass, to those of the largest image; and after a pass the answers get as long again before the next one
(scheduling/window.py), as they do beside embedding. All running requests whose next image is the same, as those of
`n` answers are, share its pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from engine.clock import Clock
from engine.inference.image_prompt import Pixels
from engine.inference.sequence import Sequence
from engine.models.loader import LoadedModel
from engine.scheduling.window import earliest_next_s


class ImageEncoder:
    """Shows the images of running requests to one model. `on_error` is told of a request whose images it cannot
    take. Belongs to the thread that steps the runner."""

    def __init__(self, loaded: LoadedModel, clock: Clock, on_error: Callable[[Sequence, str], None]) -> None:
        self._vision = loaded.vision
        self._device = loaded.cache_shape.device
        self._clock = clock
        self._on_error = on_error
        self._not_before_s = 0.0

    def step(self, running: Iterable[Sequence]) -> None:
        """Encode one image of the first request that waits for it, if it is time."""
        running = list(running)
        waiting = next((sequence for sequence in running if not sequence.is_seen), None)
        if waiting is None:
            return
        began_s = self._clock.monotonic()
        is_generating = any(sequence.num_output_tokens for sequence in running)
        if is_generating and began_s < self._not_before_s:
            return
        self._encode(waiting, running)
        self._not_before_s = earliest_next_s(began_s, self._clock.monotonic())

    def _encode(self, sequence: Sequence, running: Iterable[Sequence]) -> None:
        """A tower that fails on one request's images (too little memory for them, say) leaves the others alone."""
        pixels = None if sequence.images is None else sequence.images.next_pixels
        if pixels is None or self._vision is None:
            return
        try:
            features = self._vision.encode(pixels, self._device)
        except (RuntimeError, ValueError) as error:
            self._refuse(sequence, error)
            return
        for one in running:
            if one.images is not None and _are_same(one.images.next_pixels, pixels):
                try:
                    one.images.put(features)
                except (RuntimeError, ValueError) as error:
                    self._refuse(one, error)

    def _refuse(self, sequence: Sequence, error: Exception) -> None:
        self._on_error(sequence, f"the images could not be shown to the model ({error}): send smaller ones")


def _are_same(ones: Pixels | None, others: Pixels) -> bool:
    """Whether they are the same numbers; to compare them takes milliseconds, where a pass takes up to seconds."""
    if ones is None or ones.keys() != others.keys():
        return False
    return ones is others or all(torch.equal(ones[key], others[key]) for key in ones)
