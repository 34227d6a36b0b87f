"""A real kernel on every GPU: what no version number can promise."""

from __future__ import annotations

from collections.abc import Callable

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import combine, severity, skip
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.profile import GpuProfile
from engine.telemetry.nvml import GpuInventory


def judge_kernel(reading: ProbeReading, inventory: GpuInventory, profile: GpuProfile) -> Finding:
    """A wrong product always fails; a GPU that computes nothing fails where the profile needs one, else warns."""
    if reading.error is not None:
        return Finding(severity(profile), reading.error, _remedy(reading.error, reading.visible_devices))
    finding = combine(by_nvml_index(reading, inventory, lambda gpu: _judge(gpu, profile)))
    hidden = len(inventory.gpus) - len(reading.gpus)
    if hidden > 0 and reading.visible_devices is not None:
        note = f"; {hidden} more hidden by CUDA_VISIBLE_DEVICES={reading.visible_devices}"
        return Finding(finding.status, finding.observed + note, finding.remedy, finding.facts)
    return finding


def by_nvml_index(
    reading: ProbeReading, inventory: GpuInventory, judge: Callable[[ProbedGpu], Finding]
) -> dict[int, Finding]:
    """Findings under NVML's number of the GPU, which `nvidia-smi` shows; torch's own where they cannot be matched."""
    known = {gpu.uuid: gpu.index for gpu in inventory.gpus if gpu.uuid is not None}
    return {known.get(gpu.uuid, gpu.index) if gpu.uuid else gpu.index: judge(gpu) for gpu in reading.gpus}


def skip_without_cuda(cuda: str | None, reason: str | None) -> Finding | None:
    """Why there is nothing to run: no GPU, or a torch that cannot use one."""
    if reason is not None:
        return skip(reason)
    return skip("the installed torch has no CUDA, see the check of PyTorch") if cuda is None else None


def _judge(gpu: ProbedGpu, profile: GpuProfile) -> Finding:
    if gpu.error is not None:
        return Finding(severity(profile), gpu.error, _remedy(gpu.error, None))
    if gpu.wrong:
        remedy = (
            f"Do not use this card: take it out of service and test it, `dcgmi diag -r 3 -i {gpu.index}`; look for Xid "
            "errors with `sudo dmesg | grep -i xid`."
        )
        return Finding(CheckStatus.FAIL, f"wrong results in {', '.join(gpu.wrong)}", remedy)
    return Finding(CheckStatus.PASS, f"matrix products in {' and '.join(gpu.dtypes)} equal the CPU's")


def _remedy(error: str, visible_devices: str | None) -> str:
    """What the words of CUDA's error point to, https://docs.nvidia.com/cuda/cuda-runtime-api (cudaError)."""
    known = {
        "no answer within": "The GPU or its driver hangs: look for Xid errors with `sudo dmesg | grep -i xid`, reset "
        "it with `sudo nvidia-smi --gpu-reset` or restart the machine.",
        "SIGSEGV": "The driver crashed: reinstall it so that library and kernel module match, and restart.",
        "no kernel image": "Install a build of torch for this GPU's compute capability, see the check of torch's "
        "architectures.",
        "driver version is insufficient": "Update the NVIDIA driver, see the check of PyTorch and CUDA.",
        "driver on your system is too old": "Update the NVIDIA driver, see the check of PyTorch and CUDA.",
        "system not yet initialized": "Start NVIDIA's Fabric Manager in the driver's version: `sudo systemctl restart "
        "nvidia-fabricmanager`.",
        "out of memory": "Free the GPU's memory: `nvidia-smi` lists the processes that hold it.",
        "uncorrectable ECC": "Reset the GPU, `sudo nvidia-smi --gpu-reset`, and see the check of ECC errors.",
        "busy or unavailable": "Another process has the GPU for itself: `sudo nvidia-smi -c 0` allows several, and "
        "`nvidia-smi` lists it.",
    }
    for words, remedy in known.items():
        if words.lower() in error.lower():
            return remedy
    if visible_devices is not None:
        return f"CUDA_VISIBLE_DEVICES={visible_devices} decides which GPUs torch sees: take it away or correct it."
    return (
        "Run `python -c 'import torch; torch.zeros(1).cuda()'` for the whole error; `sudo dmesg | tail` may tell more."
    )
