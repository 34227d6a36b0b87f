"""Plans for this machine: the memory of a model against what is free here now, with the console's settings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine.config import Settings
from engine.errors import WeightsError
from engine.models.budget import read_budget
from engine.models.footprint import PREVIEW_TEXTS
from engine.models.plan import MemoryPlan, plan_source
from engine.models.run_lines import Demand
from engine.models.spec import ModelSpec
from engine.scheduling.unloading import Room
from engine.staged_job import OnProgress
from engine.telemetry.nvml import Nvml
from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from engine.weights.preview import DownloadSize, Preview, locate, measure_download, read_preview
from engine.weights.sources import HubId


def _ignore(_stage: str, _fraction: float | None) -> None:
    """Nobody waits for it to be told."""


@dataclass(frozen=True)
class Planner:
    """Plans models before they are loaded. Nothing is converted or loaded for it; of a model that is at the hub alone
    headers are read there. `on_progress(stage, fraction)` is called while the hub is waited for, and may raise."""

    settings: Settings
    nvml: Nvml
    cache: WeightsCache
    open_hub: Callable[[], Hub] = Hub.from_environment

    def plan(self, spec: ModelSpec, demand: Demand | None = None, on_progress: OnProgress = _ignore) -> MemoryPlan:
        """The plan of `spec`.

        Raises:
            WeightsError: there is no such model, its files are damaged, its device is not here, or the hub that it is
                at cannot be asked.
        """
        settings = self.settings
        budget = read_budget(spec, self.nvml, kv_cache_gib=settings.kv_cache_gib, chunk_tokens=settings.chunk_tokens)
        unpacked = partial(unpacked_folder, cache=self.cache)
        find = partial(locate, cache=self.cache, open_hub=self.open_hub, on_progress=on_progress)

        def preview(hub_id: HubId) -> Preview:
            return read_preview(hub_id, PREVIEW_TEXTS, self.cache, self.open_hub(), on_progress)

        return plan_source(spec, budget, demand, unpacked, find, preview)

    def download(self, source: str, on_progress: OnProgress = _ignore) -> DownloadSize | None:
        """What pulling `source` would download; None where it is here.

        Raises:
            WeightsError: there is no such model, or the hub that it is at cannot be asked.
        """
        return measure_download(source, self.cache, self.open_hub, on_progress)

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
