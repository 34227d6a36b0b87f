"""GPU memory that others hold: what is taken cannot be had by a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial

from engine.environment.check import CheckStatus, Finding, format_gb
from engine.environment.gpu.each import judge_each, skip
from engine.telemetry.nvml import GpuHealth, GpuProcess, HealthInventory

_SHARE_MAX = 0.05  # a desktop takes about a gigabyte of a 24 GB card


def read_own_bytes() -> dict[str, int]:
    """What torch in this very process has reserved, by GPU uuid; empty where it has not touched a GPU.

    Inside a container the driver knows this process by the host's number, if it lists it at all, so that its memory
    cannot be found among the processes.
    """
    torch = sys.modules.get("torch")
    # Another thread may be importing torch right now, and then it is here in part.
    is_initialized = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    if torch is None or is_initialized is None or not is_initialized():
        return {}
    found = {}
    for index in range(torch.cuda.device_count()):
        uuid = str(getattr(torch.cuda.get_device_properties(index), "uuid", "")).removeprefix("GPU-")
        found[f"GPU-{uuid}"] = int(torch.cuda.memory_reserved(index))
    return found


def judge_memory_in_use(health: HealthInventory, own_bytes: Mapping[str, int], own_pid: int | None = None) -> Finding:
    """Warn where others hold more than a twentieth of a card; this process's own memory does not count."""
    return judge_each(health.gpus, partial(_judge, own_bytes=own_bytes, own_pid=own_pid or os.getpid()))


def _judge(gpu: GpuHealth, own_bytes: Mapping[str, int], own_pid: int) -> Finding:
    if gpu.memory_used_bytes is None or gpu.memory_total_bytes is None:
        return skip("the driver does not tell the memory in use")
    processes = gpu.processes or ()
    listed = sum(process.memory_used_bytes or 0 for process in processes if process.pid == own_pid)
    own = max(listed, own_bytes.get(gpu.uuid or "", 0))
    others = max(0, gpu.memory_used_bytes - own)
    free = gpu.memory_total_bytes - gpu.memory_used_bytes
    observed = f"{format_gb(others)} held by others, {format_gb(free)} of {format_gb(gpu.memory_total_bytes)} free"
    if others <= _SHARE_MAX * gpu.memory_total_bytes:
        return Finding(CheckStatus.PASS, observed)
    known = [process for process in processes if process.pid != own_pid]
    if not known:
        remedy = (
            "See `nvidia-smi` on the host: inside a container other processes are not listed; end those not needed."
        )
        return Finding(CheckStatus.WARN, f"{observed}; by whom is not told", remedy)
    pids = " ".join(str(process.pid) for process in known)
    remedy = f"End what is not needed (`ps -fp {pids.replace(' ', ',')}`, then `kill {pids}`), or choose another GPU."
    return Finding(CheckStatus.WARN, f"{observed}: {', '.join(map(_describe, known))}", remedy)


def _describe(process: GpuProcess) -> str:
    used = "an amount not told" if process.memory_used_bytes is None else format_gb(process.memory_used_bytes)
    return f"process {process.pid} ({process.name or 'name not told'}) {used}"
