"""Giving memory back to the operating system: what loading took beyond the model, and the model when it is unloaded.

Dropping the last reference is not enough. Reference cycles (tracebacks, modules) wait for the garbage collector, torch
keeps freed GPU blocks for itself, and glibc keeps freed host blocks: it raises the size from which a block is mapped on
its own up to 32 MiB as blocks come and go, and of the smaller ones it gives back what lies free within an arena but
not, in any arena but the first, the free end, up to 64 MiB each (malloc/malloc.c: `mtrim`, `heap_trim`).
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LOADING_BYTES = 128 * 2**10  # glibc's own thresholds at the start of a process
_SERVING_MMAP_BYTES, _SERVING_TRIM_BYTES = 32 * 2**20, 64 * 2**20  # and where it would raise them to


@contextmanager
def weights_apart() -> Iterator[None]:
    """Within this context large host blocks are mapped each on its own, so that freeing them gives them back.

    Process-wide: loads take turns. Afterwards the activations of a forward pass come from the heap again, which is
    faster than mapping them anew at every step.
    """
    _set_thresholds(_LOADING_BYTES, _LOADING_BYTES)
    try:
        yield
    finally:
        _set_thresholds(_SERVING_MMAP_BYTES, _SERVING_TRIM_BYTES)


def _set_thresholds(mmap_bytes: int, trim_bytes: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; musl and macOS have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, mmap_bytes)
        mallopt(_M_TRIM_THRESHOLD, trim_bytes)


@cache
def leave_out_imports() -> None:
    """Have the garbage collector pass over what is here now, for good: half a million objects of torch, transformers
    and the pages, which are no garbage. A full collection stops every thread, those that write answers too: 0.69 s
    with these objects, 0.15 s without. Called before the first model is loaded, for it would never be let go."""
    gc.freeze()


def release_memory() -> None:
    """Collect garbage, empty torch's cache of GPU memory, return free heap pages. Imports nothing that is not there
    already, so it is quick where no model was ever loaded."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
