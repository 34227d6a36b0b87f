"""How many threads torch's operators use when this thread calls them.

torch's workers spin for milliseconds after each operator that they share, in case another one comes. Beside compiled
steps, which have threads of their own, that takes the cores from the next step: it was seen to cost half as much again
at two requests. `torch.set_num_threads` would be for all threads; OpenMP's own function is for the one that calls it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SETTER = getattr(ctypes.CDLL(None), "omp_set_num_threads", None)  # torch has loaded its OpenMP for all to see


@contextmanager
def one_thread() -> Iterator[None]:
    """Only this thread within the block, and only for what it calls. Where torch is built without OpenMP, or hides it,
    nothing happens."""
    if _SETTER is None:
        yield
        return
    before = torch.get_num_threads()
    _SETTER(1)
    try:
        yield
    finally:
        _SETTER(before)
