"""How much memory key/value caches may take."""

from __future__ import annotations

import psutil
import torch

from engine.telemetry.cgroup import read_cgroup_memory

_SHARE_OF_FREE = {"cpu": 0.25, "cuda": 0.85}


def cache_budget_bytes(device: torch.device, asked_gib: float | None) -> int:
    """Bytes for all caches of one instance: what was asked for, else a quarter of the free memory of the host, or
    85 % of the GPU's, as it is after loading."""
    if asked_gib is not None:
        return int(asked_gib * 2**30)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_host_bytes()
    return int(free * _SHARE_OF_FREE[device.type])


def free_host_bytes() -> int:
    """Available memory of the host, or what its control group leaves, whichever is less."""
    available: int = psutil.virtual_memory().available
    group = read_cgroup_memory()
    return available if group is None else min(available, group.available_bytes)
