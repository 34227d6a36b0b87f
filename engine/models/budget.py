"""The memory a model may take: what is free on its device now, and how much of it caches may have."""

from __future__ import annotations

import importlib.metadata
import sys
from dataclasses import dataclass

from engine.errors import WeightsError
from engine.inference.compiled.compiler import can_compile
from engine.models.memory import asked_cache_bytes, free_host_bytes, share_for_caches
from engine.models.run_lines import CHUNK_TOKENS
from engine.models.schemes import Ability
from engine.models.spec import ModelSpec
from engine.telemetry import GpuReading, Nvml

_ON_A_CPU = Ability()


@dataclass(frozen=True, slots=True)
class Budget:
    """Free memory of one device.

    Attributes:
        device: `cpu` or `cuda:0`, as `ModelInfo.device` has it.
        free_bytes: free now; what this process holds already is not.
        where: what the number is, for people.
        kv_cache_gib: the setting; None gives caches a share of what is free after loading.
        chunk_tokens: prompt tokens in one forward pass.
        has_framework: this process has imported torch already, on a GPU also opened a context there, so that it is
            in what is taken.
        ability: what the device can multiply.
        can_compile: there is a C compiler, with which steps on a CPU are compiled (engine/inference/compiled).
    """

    device: str
    free_bytes: int
    where: str
    kv_cache_gib: float | None = None
    chunk_tokens: int = CHUNK_TOKENS["cpu"]
    has_framework: bool = False
    ability: Ability = _ON_A_CPU
    can_compile: bool = False

    @property
    def device_type(self) -> str:
        return self.device.partition(":")[0]

    def cache_limit_bytes(self, free_after_loading_bytes: int) -> int:
        """The most that caches may take, as `cache_budget_bytes` will say after loading."""
        if self.kv_cache_gib is not None:
            return asked_cache_bytes(self.kv_cache_gib)
        return share_for_caches(self.device_type, max(0, free_after_loading_bytes))


def read_budget(
    spec: ModelSpec, nvml: Nvml, *, kv_cache_gib: float | None = None, chunk_tokens: int | None = None
) -> Budget:
    """Read the free memory of the device that `spec` will be loaded on.

    Raises:
        WeightsError: `spec` asks for CUDA and there is no GPU whose memory can be read.
    """
    gpu, reason = (None, None) if spec.device == "cpu" else _first_gpu(nvml)
    if spec.device == "cuda" and gpu is None:
        raise WeightsError(f"device is cuda, and no GPU can be used: {reason}; choose auto or cpu")
    if gpu is None or gpu.memory_total_bytes is None or gpu.memory_used_bytes is None:
        chunk = chunk_tokens or CHUNK_TOKENS["cpu"]
        where = "the lesser of the host's available memory and what its control group leaves"
        return Budget(
            "cpu",
            free_host_bytes(),
            where,
            kv_cache_gib,
            chunk,
            has_framework="transformers" in sys.modules,
            can_compile=can_compile(),
        )
    free = gpu.memory_total_bytes - gpu.memory_used_bytes
    where = f"free on GPU {gpu.index}{f', {gpu.name}' if gpu.name else ''}"
    chunk = chunk_tokens or CHUNK_TOKENS["cuda"]
    ability = Ability("cuda", gpu.compute_capability)
    return Budget(f"cuda:{gpu.index}", free, where, kv_cache_gib, chunk, _has_context(), ability)


def _first_gpu(nvml: Nvml) -> tuple[GpuReading | None, str | None]:
    """The GPU that a model is put on, or why there is none."""
    if importlib.metadata.version("torch").endswith("+cpu"):
        return None, "the installed torch is the build without CUDA"
    inventory = nvml.read()
    gpu = next(iter(inventory.gpus), None)
    if gpu is not None and (gpu.memory_total_bytes is None or gpu.memory_used_bytes is None):
        return None, f"the memory of GPU {gpu.index} cannot be read: {gpu.error or 'not supported'}"
    return gpu, inventory.reason


def _has_context() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized()
