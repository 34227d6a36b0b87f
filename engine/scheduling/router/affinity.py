"""Which instance has seen the beginning of a prompt, so that its KV cache may still hold it.

A prompt is cut into blocks of characters and each block is hashed together with all before it, so two prompts have as
many hashes in common, from the first on, as they have blocks. A prompt shorter than a block has none: there is little
to save.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

BLOCK_CHARS = 512
MAX_BLOCKS = 128
_TURN = "\x1e"


def prefix_hashes(turns: Iterable[tuple[str, str]]) -> tuple[bytes, ...]:
    """One hash a whole block of (role, content) turns, `MAX_BLOCKS` at most."""
    text = _TURN.join(f"{role}\0{content}" for role, content in turns)
    hashes: list[bytes] = []
    before = b""
    for start in range(0, min(len(text) // BLOCK_CHARS, MAX_BLOCKS) * BLOCK_CHARS, BLOCK_CHARS):
        block = text[start : start + BLOCK_CHARS].encode(errors="replace")
        before = blake2b(before + block, digest_size=8).digest()
        hashes.append(before)
    return tuple(hashes)


def conversation_key(turns: Sequence[tuple[str, str]]) -> str:
    """The same for all turns of a conversation: what its first user turn and all before it say."""
    digest = blake2b(digest_size=8)
    for role, content in turns:
        for part in (role.encode(errors="replace"), content.encode(errors="replace")):
            digest.update(len(part).to_bytes(8))
            digest.update(part)
        if role == "user":
            break
    return digest.hexdigest()


class SeenPrefixes:
    """Who has seen which blocks lately: the last `capacity` of them, the least recently used go. Not for several
    threads at once."""

    def __init__(self, capacity: int = 50_000) -> None:
        self._capacity = capacity
        self._seen: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def add(self, instance: str, hashes: Iterable[bytes]) -> None:
        """Note that `instance` is about to see these blocks."""
        for block in hashes:
            self._seen[instance, block] = None
            self._seen.move_to_end((instance, block))
        while len(self._seen) > self._capacity:
            self._seen.popitem(last=False)

    def share(self, instance: str, hashes: Sequence[bytes]) -> float:
        """The share of these blocks, from the first on without a gap, that `instance` has seen."""
        for index, block in enumerate(hashes):
            if (instance, block) not in self._seen:
                return index / len(hashes)
        return 1.0 if hashes else 0.0
