"""The models that the settings want in the cache, fetched one after the other behind a console that starts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.errors import WeightsError
from engine.job import Job
from engine.weights.acquire import preload
from engine.weights.cache import WeightsCache
from engine.weights.download import Progress
from engine.weights.hub import Hub

logger = logging.getLogger(__name__)


class Preloading:
    """Fetches `sources` in the background; what cannot be had is handed to `on_failure` as one sentence."""

    def __init__(self, sources: Sequence[str], cache: WeightsCache, on_failure: Callable[[str], None]) -> None:
        self._sources = tuple(sources)
        self._cache = cache
        self._on_failure = on_failure
        self._job = Job[str]("preload", "preloading")

    def start(self) -> None:
        """Begin, if there is anything to fetch."""
        if self._sources:
            self._job.start(self._sources[0], self._run)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until everything is there or was given up."""
        self._job.wait(timeout_s)

    def close(self) -> None:
        """Stop; what has arrived of a download is kept for the next start."""
        self._job.close(5.0)

    def _run(self) -> None:
        try:
            hub = Hub.from_environment()
            for done in preload(self._sources, self._cache, convert_when_needed, self._report, hub=hub):
                if done.reason is None:
                    logger.info("%s is in the weights cache (%.2f GB)", done.source, done.size_bytes / 1e9)
                else:
                    self._fail(done.source, done.reason)
        except WeightsError as error:
            self._fail(", ".join(self._sources), str(error))

    def _fail(self, source: str, reason: str) -> None:
        logger.error("%s was not preloaded: %s", source, reason)
        self._on_failure(f"{source} was not preloaded: {reason}")

    def _report(self, stage: str, _fraction: float | None) -> None:
        self._job.report(stage)


def convert_when_needed(file: Path, folder: Path, on_progress: Progress) -> None:
    """Unpack a GGUF file into `folder`; torch is imported for that, and not before."""
    from engine.models.gguf import convert_gguf

    convert_gguf(file, folder, on_progress)
