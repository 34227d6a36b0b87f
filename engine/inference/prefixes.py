"""Keys and values of prompts that were computed, for later prompts that begin the same.

A prompt is cut into blocks of tokens, and a block is known by the hash of its tokens and all before it, so that two
prompts have in common as many blocks as they begin with. What is kept are copies: a request's own cache stays one
contiguous tensor (attention.py), and copying the block of a small model takes milliseconds where computing it takes
tenths of a second. Only whole blocks of prompts are kept. Where a block is what one forward pass computes of a prompt,
as on a CPU, a request that finds its beginning here goes on with the same cuts as one that does not, and its answer
has the same bits.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Row
from dataclasses import dataclass
from hashlib import blake2b
from itertools import takewhile
from typing import TYPE_CHECKING

from engine.inference.stats import PrefixStats

if TYPE_CHECKING:
    from engine.inference.attention import Cache, KeysValues
    from engine.inference.forward import Forward
    from engine.inference.sequence import Sequence
    from engine.scheduling.admission import Chunk


@dataclass(frozen=True, slots=True)
class PrefixLimits:
    """What may be kept.

    Attributes:
        max_tokens: in all; 0 keeps nothing.
        block_tokens: of one block, the unit of what is kept and found.
        across_keys: whether requests of one API key find what those of another left. Who can measure the time to the
            first token can then tell whether somebody has sent the same beginning.
    """

    max_tokens: int = 0
    block_tokens: int = 256
    across_keys: bool = False


def block_hashes(owner: str | None, token_ids: Row[int], block_tokens: int) -> tuple[bytes, ...]:
    """One hash a whole block, of it and all before it, and of whose it is."""
    hashes: list[bytes] = []
    before = repr(owner).encode()
    for start in range(0, len(token_ids) - block_tokens + 1, block_tokens):
        block = array("q", token_ids[start : start + block_tokens]).tobytes()
        before = blake2b(before + block, digest_size=16).digest()
        hashes.append(before)
    return tuple(hashes)


class PrefixStore:
    """The blocks of one model; the least recently used go first, of one prompt the last. Used by the thread that steps
    alone, but for `stats`."""

    def __init__(self, limits: PrefixLimits) -> None:
        self._limits = limits
        self._blocks: OrderedDict[bytes, KeysValues] = OrderedDict()
        self._num_asked_tokens = self._num_found_tokens = self._num_timed_tokens = 0
        self._timed_s = 0.0
        self._room_tokens = 0

    def lend(self, sequence: Sequence, forward: Forward) -> None:
        """Give a request that starts what is kept of its prompt's beginning, all but its last token at most: that one
        has to be computed for the first token of the answer."""
        if not self._limits.max_tokens or sequence.images is not None:  # an image's token does not tell which image
            return
        size, num_prompt = self._limits.block_tokens, sequence.num_prompt_tokens
        owner = None if self._limits.across_keys else sequence.request.key_id
        sequence.prompt_blocks = block_hashes(owner, sequence.token_ids[:num_prompt], size)
        usable = sequence.prompt_blocks[: (num_prompt - 1) // size]
        found = list(takewhile(self._blocks.__contains__, usable))
        self._num_asked_tokens += num_prompt
        self._num_found_tokens += len(found) * size
        if not found:
            return
        cache: Cache = sequence.cache_for(forward, len(found) * size)
        for index, block in enumerate(found):
            cache.put(index * size, self._blocks[block])
        self._touch(found)
        sequence.num_computed = sequence.num_lent = len(found) * size

    def keep(self, sequence: Sequence, num_tokens: int, forward: Forward) -> None:
        """Copy what blocks of the prompt were completed by computing the last `num_tokens`."""
        size, stop = self._limits.block_tokens, sequence.num_computed
        completed = range((stop - num_tokens) // size, min(stop // size, len(sequence.prompt_blocks)))
        new = [index for index in completed if sequence.prompt_blocks[index] not in self._blocks]
        if not new:
            return
        cache: Cache = sequence.cache_for(forward, stop)
        for index in new:
            self._blocks[sequence.prompt_blocks[index]] = cache.copy(index * size, (index + 1) * size)
        self._touch(sequence.prompt_blocks[: new[-1] + 1])
        self._drop()

    def _touch(self, blocks: Row[bytes]) -> None:
        """Mark a prompt's blocks as used, its first one last: without that one the others are not found."""
        for block in reversed(blocks):
            if block in self._blocks:
                self._blocks.move_to_end(block)

    def clear(self) -> bool:
        """Keep nothing of what is kept now; whether that was anything."""
        had_some = bool(self._blocks)
        self._blocks.clear()
        return had_some

    def make_room(self, room_tokens: int) -> None:
        """From now on, keep no more than there is room for beside the running requests."""
        self._room_tokens = max(0, room_tokens)
        self._drop()

    def _drop(self) -> None:
        most = min(self._limits.max_tokens, self._room_tokens) // self._limits.block_tokens
        while len(self._blocks) > most:
            self._blocks.popitem(last=False)

    def time(self, chunks: Iterable[Chunk], took_s: float) -> None:
        """Note what a step took: its share of prompts' tokens tells what those that are found save."""
        numbers = [chunk.num_tokens for chunk in chunks]
        of_prompts = sum(number for number in numbers if number > 1)
        if of_prompts:
            self._num_timed_tokens += of_prompts
            self._timed_s += took_s * of_prompts / sum(numbers)

    def stats(self) -> PrefixStats | None:
        """What it holds and did; None where nothing is kept."""
        if not self._limits.max_tokens:
            return None
        timed = self._num_timed_tokens
        return PrefixStats(
            num_kept_tokens=len(self._blocks) * self._limits.block_tokens,
            max_tokens=self._limits.max_tokens,
            block_tokens=self._limits.block_tokens,
            num_asked_tokens=self._num_asked_tokens,
            num_found_tokens=self._num_found_tokens,
            saved_s=self._num_found_tokens * self._timed_s / timed if timed else None,
        )
