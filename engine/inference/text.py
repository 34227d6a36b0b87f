"""Token ids to text as they arrive: whole characters only, and nothing past a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes, so whatever waits for longer than this is no beginning of one.
_MOST_PENDING = 16


class StopStrings:
    """Holds back text that may be the beginning of a stop string, wherever token borders fall. Of several, the one
    that is complete first counts, as if the text came letter by letter."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.is_hit = False

    def feed(self, text: str) -> str:
        """The text that is certain to belong to the answer. After a hit, always empty."""
        if self.is_hit:
            return ""
        buffer = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := buffer.find(stop)) >= 0]
        if found:
            self.is_hit, self._held = True, ""
            return buffer[: min(found)[1]]
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
        self._context: list[int] = []  # given out last; they decide how the pending ones are joined
        self._pending: list[int] = []
        self._stops = StopStrings(stops)

    @property
    def is_stopped(self) -> bool:
        """A stop string was found; the text before it has been given out."""
        return self._stops.is_hit

    def feed(self, token_id: int) -> str:
        """New text, possibly empty: a character may need several tokens."""
        self._pending.append(token_id)
        piece = self._pending_text()
        is_partial = not piece or piece.endswith(_REPLACEMENT)
        if is_partial and len(self._pending) < _MOST_PENDING:
            return ""
        self._context, self._pending = self._pending, []
        return self._stops.feed(piece)

    def _pending_text(self) -> str:
        """Decoded anew behind its context each time: tokenizers' DecodeStream raises where a later byte token makes
        an earlier one invalid, and forgets its last piece."""
        before: str = self._backend.decode(self._context)
        both: str = self._backend.decode(self._context + self._pending)
        return both[len(before) :]

    def flush(self) -> str:
        """The rest of the text when the answer ended for another reason than a stop string; half a character at its
        end is left out."""
        piece = self._pending_text().rstrip(_REPLACEMENT) if self._pending else ""
        self._pending = []
        return self._stops.feed(piece) + self._stops.flush()
