"""Whether the memory plan of an instance was right: marked before it loads, measured when it is warm.

By how much the process grew can be told only where nothing else went on in it meanwhile. Loads take turns, but a lock
is let go of between loading and the end of the warm-up, and other instances answer all the time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from engine.errors import WeightsError
from engine.instance.reading import Backend
from engine.models.comparison import MemoryReading, compare_at_rest
from engine.models.plan import MemoryPlan
from engine.models.spec import ModelSpec

if TYPE_CHECKING:
    from engine.inference.runner import Runner
    from engine.models.loader import LoadedModel

logger = logging.getLogger(__name__)

_NOT_ALONE = "by how much the process grew: other models were loaded, unloaded or asked meanwhile"

Plan = Callable[[ModelSpec], MemoryPlan]


class MemoryWatch:
    """Compares one load with its plan. Used by the instance's supervisor alone.

    `plan` is asked after loading, when a model of a hub is on this machine; None leaves the plan out. `witness` tells
    what other instances do: where it says the same before and after, and nobody holds `load_lock`, the growth of the
    process is that of this model.
    """

    def __init__(self, plan: Plan | None, witness: Callable[[], object], load_lock: threading.Lock) -> None:
        self._plan = plan
        self._witness = witness
        self._load_lock = load_lock
        self._mark_bytes: int | None = None
        self._seen: object = None

    def mark(self, backend: Backend, spec: ModelSpec) -> None:
        """Before the load, whose turn it is.

        Raises:
            WeightsError: the device is not there.
        """
        self._seen = self._witness()
        self._mark_bytes = backend.mark_memory(spec)

    def read(self, backend: Backend, loaded: LoadedModel, runner: Runner, spec: ModelSpec) -> MemoryReading | None:
        """After the warm-up. None, and a line in the log, where measuring fails: that is no reason not to serve."""
        try:
            return self._read(backend, loaded, runner, spec)
        except Exception:
            logger.exception("the memory of %s could not be measured", spec.name)
            return None

    def _read(self, backend: Backend, loaded: LoadedModel, runner: Runner, spec: ModelSpec) -> MemoryReading:
        was_alone = self._is_alone()
        measured = backend.measure(loaded, runner, self._mark_bytes)
        untold = []
        if not (was_alone and self._is_alone()):
            measured = replace(measured, process_bytes=None)
            untold.append(_NOT_ALONE)
        if self._plan is None:
            return MemoryReading(measured, (), (*untold, "what was planned: this engine makes no plans"))
        try:
            return MemoryReading(measured, compare_at_rest(self._plan(spec), measured), tuple(untold))
        except WeightsError as error:
            return MemoryReading(measured, (), (*untold, f"what was planned: {error}"))

    def _is_alone(self) -> bool:
        """Whether nothing else has gone on since the mark, nor does."""
        if not self._load_lock.acquire(blocking=False):
            return False
        try:
            return self._witness() == self._seen
        finally:
            self._load_lock.release()
