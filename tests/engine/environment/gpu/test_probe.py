from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from engine.environment.gpu import probe
from engine.environment.gpu.probing import PROBE, run_probe
from tests.engine.environment.gpu.processes import wait_until_gone

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_on_a_sound_device_are_exact(dtype: torch.dtype) -> None:
    assert probe.check_product(CPU, dtype, size=96)


def test_one_wrong_bit_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.Tensor.__matmul__

    def faulty(left: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        product = right(left, other)
        if left.dtype is torch.bfloat16:
            product[3, 5] += 1
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", faulty)
    assert not probe.check_product(CPU, torch.bfloat16, size=32)


def test_a_device_is_checked_in_both_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "check_product", lambda device, dtype: dtype is torch.float32)
    answer = probe.check_gpu(CPU, torch.bfloat16)
    assert answer["dtypes"] == ["float32", "bfloat16"]
    assert answer["wrong"] == ["bfloat16"]


def test_rates_are_measured() -> None:
    copies = probe.measure_copies(CPU, 8 << 20, 4 << 20)
    assert set(copies) == {"device_bytes_per_s", "to_device_bytes_per_s", "from_device_bytes_per_s"}
    assert all(rate > 1e8 for rate in copies.values())
    assert probe.measure_product(CPU, torch.float32, 256, warm_s=0.01) > 1e8


def test_halves_by_capability() -> None:
    assert probe.half_dtype(9) is torch.bfloat16
    assert probe.half_dtype(7) is torch.float16


def test_an_error_is_told_in_two_lines() -> None:
    error = RuntimeError("CUDA error: an illegal memory access\nCUDA kernel errors might be\nFor debugging\n")
    assert probe.explain(error) == "RuntimeError: CUDA error: an illegal memory access CUDA kernel errors might be"


def test_a_gpu_that_is_not_there_is_that_gpus_error() -> None:
    answer = probe.probe_gpu(99, lambda device, half: {})
    assert answer["index"] == 99
    assert "error" in answer


def test_stdout_is_for_the_answer_alone() -> None:
    run = subprocess.run(
        [sys.executable, "-P", str(PROBE), "nonsense"], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout == '{"error": "KeyError: \'nonsense\'"}\n'


@pytest.mark.parametrize("mode", ["kernels", "speeds"])
def test_this_torch_answers_or_says_why_not(mode: str) -> None:
    answer = run_probe([mode], 120)
    if torch.version.cuda is None:
        assert answer["error"] == f"torch {torch.__version__} is built without CUDA"
        assert answer["gpus"] == []
    else:
        assert answer["arch_list"] or "error" in answer


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's prctl")
def test_it_does_not_outlive_the_process_that_started_it() -> None:
    child = (
        f"import runpy, sys, time\nrunpy.run_path({str(PROBE)!r}, run_name='probe')['die_with_parent']()\n"
        "print('ready', flush=True)\ntime.sleep(60)\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid)\n"
    )
    run = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=60, check=True)
    wait_until_gone(int(run.stdout))


def test_the_engine_stays_out_of_the_probe() -> None:
    code = (
        f"import runpy, sys\nrunpy.run_path({str(PROBE)!r}, run_name='probe')\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('engine', 'torch', 'pynvml')]\n"
    )
    subprocess.run([sys.executable, "-P", "-c", code], timeout=60, check=True)
