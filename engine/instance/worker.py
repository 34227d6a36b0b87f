"""The thread that steps a runner and, between its steps, an embedder; and what is left to do when it ends."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from engine.errors import WorkerDiedError

if TYPE_CHECKING:
    from engine.inference.embedder import Embedder
    from engine.inference.runner import Runner

logger = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.5


class Worker:
    """Steps `runner`, and `embedder` at most once after each of its steps, until `stopping` is set or something
    raises. It keeps the text of an error and not the error, whose traceback would keep the model in memory."""

    def __init__(self, name: str, label: str, runner: Runner, embedder: Embedder, stopping: threading.Event) -> None:
        self._name = name
        self._label = label
        self._runner = runner
        self._embedder = embedder
        self._stopping = stopping
        self._cause = "it ended without an error"
        self._thread = threading.Thread(target=self._work, name=f"worker:{label}", daemon=True)

    def start(self) -> None:
        """Begin to step."""
        self._thread.start()

    def join(self) -> str:
        """Wait for the end, end the requests that it left behind, and say why it ended."""
        self._thread.join()
        message = f"the worker of {self._name} died ({self._cause}); it restarts, send the request again"
        error = None if self._stopping.is_set() else str(WorkerDiedError(message))
        self._runner.close(error)
        self._embedder.close(error)
        return f"the worker died ({self._cause})"

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                is_generating = self._runner.step()
                if self._embedder.is_asked:
                    self._runner.deliver()
                wait_s = self._embedder.step(is_generating=is_generating)
                if not is_generating and wait_s != 0:
                    self._runner.wait(_IDLE_WAIT_S if wait_s is None else min(wait_s, _IDLE_WAIT_S))
        except BaseException as error:
            self._cause = f"{type(error).__name__}: {error}"
            logger.exception("the worker of %s died", self._label)
