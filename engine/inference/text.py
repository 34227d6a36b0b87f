"""Token ids to text as they arrive: whole characters only, and nothing past a stop string."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# A character has at most four bytes, so whatever waits for longer than this is no beginning of one.
_MOST_PENDING = 16
# How OpenAI writes a token that is no text of its own, half a character say.
_BYTES_NOTATION = re.compile(r"bytes:(?:\\x[0-9a-f]{2})+")
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


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
        keep = max((overlap(buffer, stop) for stop in self._stops), default=0)
        self._held = buffer[len(buffer) - keep :]
        return buffer[: len(buffer) - keep]

    def flush(self) -> str:
        """What was held back, once no more text can come."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class Detokenizer:
    """The text of one answer, token by token. Special tokens have no text, but for those in `shown`."""

    def __init__(self, backend: Any, stops: Sequence[str], shown: Mapping[int, str] | None = None) -> None:
        self._backend = backend
        self._shown = shown or {}
        self._context: list[int] = []  # given out last; they decide how the pending ones are joined
        self._context_text = ""
        self._pending: list[int] = []
        self._stops = StopStrings(stops)

    @property
    def is_stopped(self) -> bool:
        """A stop string was found; the text before it has been given out."""
        return self._stops.is_hit

    def feed(self, token_id: int) -> str:
        """New text, possibly empty: a character may need several tokens."""
        if token_id in self._shown:
            piece = self._pending_text().rstrip(_REPLACEMENT) + self._shown[token_id]
            self._follow([])
            return self._stops.feed(piece)
        self._pending.append(token_id)
        piece = self._pending_text()
        is_partial = not piece or piece.endswith(_REPLACEMENT)
        if is_partial and len(self._pending) < _MOST_PENDING:
            return ""
        self._follow(self._pending)
        return self._stops.feed(piece)

    def _follow(self, context: list[int]) -> None:
        """What comes now is joined to `context`."""
        self._context, self._pending = context, []
        self._context_text = self._backend.decode(context) if context else ""

    def _pending_text(self) -> str:
        """Decoded anew behind its context each time: tokenizers' DecodeStream raises where a later byte token makes
        an earlier one invalid, and forgets its last piece."""
        both: str = self._backend.decode(self._context + self._pending)
        return both[len(self._context_text) :]

    def flush(self) -> str:
        """The rest of the text when the answer ended for another reason than a stop string; half a character at its
        end is left out."""
        piece = self._pending_text().rstrip(_REPLACEMENT) if self._pending else ""
        self._pending = []
        return self._stops.feed(piece) + self._stops.flush()


def token_text(tokenizer: Any, token_id: int) -> str:
    """What one token says by itself. A token that is not whole characters is written `bytes:\\xf0\\x9f`, as OpenAI's
    log-probabilities have it; `token_bytes` reads both."""
    text: str = tokenizer.decode([token_id])
    if _REPLACEMENT not in text:
        return text
    raw = _piece_bytes(tokenizer.convert_ids_to_tokens(token_id))
    return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw) if raw else text


def token_bytes(text: str) -> bytes:
    """The bytes of a token from its `token_text`."""
    if _BYTES_NOTATION.fullmatch(text):
        return bytes.fromhex(text.removeprefix("bytes:").replace("\\x", ""))
    return text.encode()


def _piece_bytes(piece: str) -> bytes | None:
    """Of an entry of a vocabulary: SentencePiece's byte tokens, or GPT-2's letters for bytes; None for neither."""
    if (byte := _BYTE_TOKEN.fullmatch(piece)) is not None:
        return bytes.fromhex(byte.group(1))
    try:
        return bytes(BYTE_OF_LETTER[letter] for letter in piece)
    except KeyError:
        return None


def _letters_of_bytes() -> dict[str, int]:
    """GPT-2's alphabet: a byte that prints stands for itself, the others take the code points from 256 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(256 + place): byte for place, byte in enumerate(others)}


BYTE_OF_LETTER = _letters_of_bytes()
