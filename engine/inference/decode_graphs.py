"""Steps in which every request writes one token, as CUDA graphs: the GPU is given all its work at once, where Python
would hand it thousands of small pieces.

A graph has a fixed number of rows, so there is one for each of some batch sizes, and rows that nobody needs are filled
with a scratch place of the pool. What a row is (token, position, places in the pool) lies in one buffer that is written
before each replay; the tokens may come from the device, as it chose them in the step before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.inference.pool import KvPool, PooledBatch, PooledCache
from engine.inference.upload import upload

_SMALL_SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96)
_STEP = 64
_NUM_FIELDS = 5
_WARM_UPS = 2
# The next step is written while the device may still read the one before.
_NUM_BUFFERS = 3


@dataclass(frozen=True, slots=True)
class Row:
    """One request's next token: its id (None where only the device knows it), its position, its place in the cache, and
    that cache."""

    token_id: int | None
    position: int
    place: int
    cache: PooledCache


def sizes_up_to(most: int) -> tuple[int, ...]:
    """Batch sizes that graphs are made for: the last is `most`, and none is much larger than the one before."""
    between = (*_SMALL_SIZES, *range(128, most, _STEP))
    return (*(size for size in between if size < most), most)


class DecodeGraphs:
    """The graphs of one model and pool. Belongs to the thread that steps the runner. `run_step` gives logits (rows,
    vocab) of ids and positions, (rows,) each."""

    def __init__(
        self,
        run_step: Callable[[torch.Tensor, torch.Tensor, PooledBatch], torch.Tensor],
        pool: KvPool,
        max_rows: int,
        max_length: int,
    ) -> None:
        self._run_step = run_step
        self._pool = pool
        self._max_length = max_length
        self._sizes = sizes_up_to(max_rows)
        device = pool.layers[0].device
        self._buffers = [
            torch.zeros(_NUM_FIELDS, max_rows, dtype=torch.int64).pin_memory() for _ in range(_NUM_BUFFERS)
        ]
        self._num_runs = 0
        self._rows = torch.zeros(_NUM_FIELDS, max_rows, dtype=torch.int64, device=device)
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._memory: Any = None
        self._version = -1

    @property
    def max_rows(self) -> int:
        """The most that one graph takes."""
        return self._sizes[-1]

    @property
    def are_ready(self) -> bool:
        """Whether they were captured, and the pool is still where it was then."""
        return self._version == self._pool.version

    def capture(self) -> None:
        """Make all graphs, the largest first: the others then live in its memory.

        Raises:
            RuntimeError: the model does something in a step that a graph cannot hold.
        """
        self._drop()
        try:
            for size in reversed(self._sizes):
                self._graphs[size] = self._capture(size)
        except RuntimeError:
            self._drop()  # what was captured of them holds memory
            raise
        self._version = self._pool.version

    def _drop(self) -> None:
        self._graphs.clear()
        self._memory = None

    def _capture(self, size: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        self._fill([], size)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                self._forward(size)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            logits = self._forward(size)
        self._memory = graph.pool()
        return graph, logits

    def _forward(self, size: int) -> torch.Tensor:
        ids, positions, slots, starts, lengths = (field[:size] for field in self._rows)
        ends = torch.cat((starts, starts[-1:] + lengths[-1:])).to(torch.int32)
        borders = torch.arange(size + 1, dtype=torch.int32, device=self._rows.device)
        lengths = lengths.to(torch.int32)
        layers = self._pool.layers
        batch = PooledBatch(layers, slots, borders, ends, lengths, 1, self._max_length, num_single=size)
        return self._run_step(ids, positions, batch)

    def _fill(self, rows: Sequence[Row], size: int) -> None:
        """Rows beyond those given read and write the scratch place, the pool's first."""
        self._num_runs += 1
        buffer = self._buffers[self._num_runs % _NUM_BUFFERS]
        numbers = buffer.numpy()
        numbers[:, len(rows) : size] = 0
        numbers[4, len(rows) : size] = 1
        starts = [row.cache.start for row in rows]
        numbers[:, : len(rows)] = (
            [row.token_id or 0 for row in rows],
            [row.position for row in rows],
            [start + row.place for start, row in zip(starts, rows, strict=True)],
            starts,
            [row.place + 1 for row in rows],
        )
        self._rows[:, :size].copy_(buffer[:, :size], non_blocking=True)

    def run(self, rows: Sequence[Row], chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Logits (rows, vocab), to be read before the next run; `rows` are at most `max_rows`, the graphs are ready,
        and `chosen` are the tokens that only the device knows."""
        size = self._sizes[bisect_left(self._sizes, len(rows))]
        graph, logits = self._graphs[size]
        self._fill(rows, size)
        if chosen is not None:
            unknown = [index for index, row in enumerate(rows) if row.token_id is None]
            places = slice(len(rows)) if len(unknown) == len(rows) else upload(torch.tensor(unknown), self._rows.device)
            self._rows[0, places] = chosen
        graph.replay()
        return logits[: len(rows)]
