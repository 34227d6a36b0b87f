from __future__ import annotations

import threading

import pytest
import torch

from engine.inference.compiled import torch_threads
from engine.inference.compiled.torch_threads import one_thread


@pytest.mark.skipif(torch_threads._SETTER is None, reason="torch is built without OpenMP here")
def test_one_thread_is_for_the_block_and_for_its_thread() -> None:
    before, others = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
            other = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
            other.start()
            other.join()
        assert (torch.get_num_threads(), others) == (2, [2])
    finally:
        torch.set_num_threads(before)


def test_nothing_happens_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_threads, "_SETTER", None)
    before = torch.get_num_threads()
    with one_thread():
        assert torch.get_num_threads() == before
