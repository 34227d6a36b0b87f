"""How much memory key/value caches may take. Importing this module does not import torch: plans are made without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

from engine.telemetry.cgroup import read_cgroup_memory

if TYPE_CHECKING:
    import torch

SHARE_OF_FREE = {"cpu": 0.25, "cuda": 0.85}


def cache_budget_bytes(device: torch.device, asked_gib: float | None) -> int:
    """Bytes for all caches of one instance: what was asked for, else a quarter of the free memory of the host, or
    85 % of the GPU's, as it is after loading."""
    if asked_gib is not None:
        return asked_cache_bytes(asked_gib)
    return share_for_caches(device.type, _free_gpu_bytes(device) if device.type == "cuda" else free_host_bytes())


def asked_cache_bytes(asked_gib: float) -> int:
    """GiB as a setting gives them, in bytes."""
    return int(asked_gib * 2**30)


def share_for_caches(device_type: str, free_bytes: int) -> int:
    """The share of what is free after loading that caches may take where no setting says; `cpu` or `cuda`."""
    return int(free_bytes * SHARE_OF_FREE[device_type])


def free_host_bytes() -> int:
    """Available memory of the host, or what its control group leaves, whichever is less."""
    available: int = psutil.virtual_memory().available
    group = read_cgroup_memory()
    return available if group is None else min(available, group.available_bytes)


def _free_gpu_bytes(device: torch.device) -> int:
    import torch

    free: int = torch.cuda.mem_get_info(device)[0]
    return free
