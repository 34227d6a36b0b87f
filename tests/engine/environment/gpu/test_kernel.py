from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.kernel import judge_kernel, skip_without_cuda
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuInventory, GpuReading

NEEDED = GpuProfile(count=Bound(require=1, recommend=None))
TWO = GpuInventory((GpuReading(0, "GPU-a"), GpuReading(1, "GPU-b")))
GOOD = ProbedGpu(0, "GPU-a", "NVIDIA H100", (9, 0), ("float32", "bfloat16"))


def test_right_products_pass() -> None:
    finding = judge_kernel(ProbeReading((GOOD,)), GpuInventory((GpuReading(0, "GPU-a"),)), NEEDED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "matrix products in float32 and bfloat16 equal the CPU's"


def test_a_wrong_product_fails_even_where_no_gpu_is_needed() -> None:
    wrong = ProbedGpu(0, "GPU-b", dtypes=("float32", "bfloat16"), wrong=("bfloat16",))
    finding = judge_kernel(ProbeReading((wrong,)), TWO, GpuProfile())
    assert finding.status is CheckStatus.FAIL
    assert finding.observed == "wrong results in bfloat16"
    assert "dcgmi diag -r 3" in (finding.remedy or "")


def test_gpus_go_by_the_number_that_nvidia_smi_shows() -> None:
    swapped = ProbeReading((ProbedGpu(0, "GPU-b", error="RuntimeError: boom"), ProbedGpu(1, "GPU-a")))
    assert "GPU 1: RuntimeError: boom" in judge_kernel(swapped, TWO, NEEDED).observed


def test_hidden_gpus_are_told() -> None:
    finding = judge_kernel(ProbeReading((GOOD,), visible_devices="0"), TWO, NEEDED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed.endswith("; 1 more hidden by CUDA_VISIBLE_DEVICES=0")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("the probe gave no answer within 60 s and was ended", "hangs"),
        ("the probe was ended by SIGSEGV and gave no answer", "driver crashed"),
        ("RuntimeError: CUDA error: no kernel image is available for execution on the device", "compute capability"),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "Update the NVIDIA driver",
        ),
        ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "Update the NVIDIA driver"),
        ("RuntimeError: Error 802: system not yet initialized", "nvidia-fabricmanager"),
        ("torch.OutOfMemoryError: CUDA out of memory", "Free the GPU's memory"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "--gpu-reset"),
        ("RuntimeError: CUDA-capable device(s) is/are busy or unavailable", "nvidia-smi -c 0"),
        ("RuntimeError: something new", "torch.zeros(1).cuda()"),
    ],
)
def test_the_remedy_fits_the_error(error: str, words: str) -> None:
    whole = judge_kernel(ProbeReading(error=error), TWO, NEEDED)
    assert whole.status is CheckStatus.FAIL
    assert words in (whole.remedy or "")
    one = judge_kernel(ProbeReading((ProbedGpu(0, "GPU-a", error=error),)), TWO, GpuProfile())
    assert one.status is CheckStatus.WARN
    assert words in (one.remedy or "")


def test_no_visible_gpu_points_to_the_variable() -> None:
    finding = judge_kernel(ProbeReading(visible_devices="7", error="torch sees no GPU"), TWO, NEEDED)
    assert "CUDA_VISIBLE_DEVICES=7" in (finding.remedy or "")


def test_what_to_skip() -> None:
    assert skip_without_cuda("13.0", None) is None
    no_gpu, no_cuda = skip_without_cuda("13.0", "No driver."), skip_without_cuda(None, None)
    assert no_gpu is not None
    assert no_gpu.observed == "No driver."
    assert no_cuda is not None
    assert "no CUDA" in no_cuda.observed
