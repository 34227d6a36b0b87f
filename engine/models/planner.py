"""Plans for this machine: the memory of a model against what is free here now, with the console's settings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.config import Settings
from engine.errors import WeightsError
from engine.models.budget import read_budget
from engine.models.plan import MemoryPlan, plan_source
from engine.models.run_lines import Demand
from engine.models.spec import ModelSpec
from engine.scheduling.unloading import Room
from engine.telemetry.nvml import Nvml
from engine.weights.cache import WeightsCache
from engine.weights.cached import find_here


@dataclass(frozen=True)
class Planner:
    """Plans models before they are loaded. Nothing is converted or loaded for it."""

    settings: Settings
    nvml: Nvml
    cache: WeightsCache

    def plan(self, spec: ModelSpec, demand: Demand | None = None) -> MemoryPlan:
        """The plan of `spec`.

        Raises:
            WeightsError: it is not on this machine nor in the cache, its files are damaged, or its device is not here.
        """
        settings = self.settings
        budget = read_budget(spec, self.nvml, kv_cache_gib=settings.kv_cache_gib, chunk_tokens=settings.chunk_tokens)
        unpacked, find = partial(unpacked_folder, cache=self.cache), partial(find_here, cache=self.cache)
        return plan_source(spec, budget, demand, unpacked, find)

    def room(self, spec: ModelSpec) -> Room | None:
        """What `spec` needs and what is free; None where it cannot be told, and loading itself will say why."""
        try:
            plan = self.plan(spec)
        except WeightsError:
            return None
        return Room(plan.budget.device, plan.needed_bytes, plan.budget.free_bytes)


def unpacked_folder(file: Path, cache: WeightsCache) -> Path | None:
    """Where a GGUF file lies unpacked; None where it was not yet."""
    folder = cache.root / cache.digest_of(file) if cache.root.is_dir() else None
    return folder if folder is not None and folder.is_dir() else None
