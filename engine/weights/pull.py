"""Having a model in the weights cache, without loading it: at once, or in the background of a console."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.clock import Clock
from engine.staged_job import OnProgress, StagedJob
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.files import FileEntry
from engine.weights.hub import Hub
from engine.weights.preloading import convert_when_needed
from engine.weights.sources import find_source


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is in the cache, or was on this machine anyway."""

    source: str
    name: str
    revision: str
    folder: Path
    size_bytes: int
    files: tuple[FileEntry, ...]


def pull(source: str, cache: WeightsCache, hub: Hub, on_progress: OnProgress) -> Pulled:
    """Fetch and unpack what is not there yet. `on_progress` may raise: what has arrived is kept.

    Raises:
        WeightsError: there is no such model, it cannot be fetched or comes damaged, or the cache has no room.
    """
    acquired = acquire(source, cache, convert_when_needed, on_progress, hub=hub)
    with acquired.lease:
        size_bytes = sum(file.size_bytes for file in acquired.files)
        return Pulled(source, acquired.name, acquired.revision, acquired.folder, size_bytes, acquired.files)


class Pulls(StagedJob[Pulled]):
    """Pulls models behind a console, one at a time."""

    def __init__(self, cache: WeightsCache, clock: Clock, open_hub: Callable[[], Hub] = Hub.from_environment) -> None:
        super().__init__("pull", "the pull", clock)
        self._cache, self._open_hub = cache, open_hub

    def pull(self, source: str) -> None:
        """Begin to pull `source`; a cancelled one goes on where it stopped when it is pulled again.

        Raises:
            WeightsError: it names nothing.
            JobRunningError: another model is being pulled.
        """
        find_source(source)
        self._start(source, lambda tell: pull(source, self._cache, self._open_hub(), tell))
