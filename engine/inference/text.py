"""Token ids to text as they arrive: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class StopStrings:
    """Holds back text that may be the beginning of a stop string, wherever token borders fall."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_hit = False

    def feed(self, text: str) -> str:
        """The text that is certain to belong to the answer. After a hit, always empty."""
        if self.is_hit:
            return ""
        buffer = self._held + text
        found = [at for stop in self._stops if (at := buffer.find(stop)) >= 0]
        if found:
            self.is_hit, self._held = True, ""
            return buffer[: min(found)]
        keep = max((_overlap(buffer, stop) for stop in self._stops), default=0)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep]

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class Detokenizer:
    """The text of one answer, token by token. Special tokens have no text."""

    def __init__(self, backend: Any, stops: Sequence[str]) -> None:
        self._backend = backend
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stops = StopStrings(stops)

    @property
    def is_stopped(self) -> bool:
        """A stop string was found; the text before it has been given out."""
        return self._stops.is_hit

    def feed(self, token_id: int) -> str:
        """New text, possibly empty: a character may need several tokens."""
        piece = self._stream.step(self._backend, token_id)
        return self._stops.feed(piece) if piece else ""

    def flush(self) -> str:
        """The rest of the text when the answer ended for another reason than a stop string."""
        return "" if self._stops.is_hit else self._stops.flush()
