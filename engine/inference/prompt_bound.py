"""How many tokens a text has at least, told without cutting it into tokens.

A byte-level tokenizer puts every byte of a text into one token. With L(b) the bytes of the longest token that has the
byte b, the bytes of one token have 1 / L(b) of at most 1 together. So a text has at least as many tokens as its bytes
have of 1 / L(b).
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any
from unicodedata import is_normalized
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from tokenizers import models

from engine.inference.text import BYTE_OF_LETTER

# 1 / L(b) in whole parts of a token, rounded down, so that sums are exact and never too large.
_PARTS_BITS = 32
_BLOCK_BYTES = 1 << 20
# NFC leaves these as they are and joins none of them to what stands before it. What is followed by any other character
# may be joined with that.
_STEADY = r"\x00-\x7f\u3001-\u3029\u4e00-\u9fff\uff01-\uff5e"
_UNSTEADY = re.compile(rf"[{_STEADY}]?[^{_STEADY}]+")
# Pre-tokenizers that drop no character.
_KEEPING = frozenset({"ByteLevel", "Digits", "Split"})
_LETTERS = BYTE_OF_LETTER.keys()


class TokenBound:
    """The bound of one tokenizer: 0 for one that is not byte-level or may drop characters, as nothing is known then."""

    def __init__(self, tokenizer: Any) -> None:
        backend: Any = getattr(tokenizer, "_tokenizer", None)
        self._is_known = backend is not None and _keeps_bytes(backend)
        self._is_normalizing = self._is_known and backend.normalizer is not None
        self._parts = _parts_of(backend) if self._is_known else np.zeros(256, np.int64)

    def least_tokens(self, text: str) -> int:
        """No tokenization of `text` has fewer."""
        if not self._is_known:
            return 0
        raw = (_UNSTEADY.sub("", text) if self._is_normalizing else text).encode()
        num_parts = sum(
            int(np.bincount(np.frombuffer(raw[start : start + _BLOCK_BYTES], np.uint8), minlength=256) @ self._parts)
            for start in range(0, len(raw), _BLOCK_BYTES)
        )
        return -(-num_parts >> _PARTS_BITS)


def least_tokens(tokenizer: Any, text: str) -> int:
    """The bound of a loaded model's tokenizer; it is made when it is first asked for, which takes a part of a second,
    and kept for as long as the tokenizer."""
    with _bounds_lock:
        bound = _bounds.get(tokenizer)
        if bound is None:
            bound = _bounds[tokenizer] = TokenBound(tokenizer)
    return bound.least_tokens(text)


def _keeps_bytes(backend: Any) -> bool:
    """Whether each byte of a text, as NFC leaves it, is sure to be in a token."""
    model = backend.model
    steps = list(_pre_tokenizers(_state(backend.pre_tokenizer)))
    added = backend.get_added_tokens_decoder().values()
    return (
        isinstance(model, models.BPE)
        and not (model.continuing_subword_prefix or model.end_of_word_suffix)
        and _state(backend.normalizer) in (None, {"type": "NFC"})
        and [step["type"] for step in steps].count("ByteLevel") == 1
        and all(step["type"] in _KEEPING and step.get("behavior") != "Removed" for step in steps)
        and not any(token.lstrip or token.rstrip or not is_normalized("NFC", token.content) for token in added)
    )


def _state(part: Any) -> Any:
    """What a part of a tokenizer is made of."""
    return None if part is None else json.loads(part.__getstate__())


def _pre_tokenizers(state: Any) -> Iterator[dict[str, Any]]:
    if state is not None and state["type"] == "Sequence":
        for part in state["pretokenizers"]:
            yield from _pre_tokenizers(part)
    elif state is not None:
        yield state


def _parts_of(backend: Any) -> npt.NDArray[np.int64]:
    """1 / L(b) of each byte; 0 for one that is no token by itself, which the tokenizer drops."""
    vocabulary = backend.get_vocab(with_added_tokens=False)
    tokens = [bytes(map(BYTE_OF_LETTER.__getitem__, piece)) for piece in vocabulary if set(piece) <= _LETTERS]
    tokens += [token.content.encode() for token in backend.get_added_tokens_decoder().values()]
    parts = np.zeros(256, np.int64)
    for token in sorted(filter(None, tokens), key=len):  # the longest writes last
        parts[list(token)] = (1 << _PARTS_BITS) // len(token)
    for letter, byte in BYTE_OF_LETTER.items():
        if letter not in vocabulary:
            parts[byte] = 0
    return parts


_bounds: WeakKeyDictionary[Any, TokenBound] = WeakKeyDictionary()
_bounds_lock = threading.Lock()
