"""`python -m tests.engine.api.abused_server`: the server of `python -m engine.api`, whose worker SIGUSR1 kills at its
next forward pass."""

from __future__ import annotations

import signal
import threading
from typing import Any

from engine.api.__main__ import main
from engine.inference.runner import Runner
from engine.instance import instance


def _make_killable() -> None:
    compute, is_killed = Runner._compute_chunks, threading.Event()

    def compute_or_die(runner: Runner, *arguments: Any) -> Any:
        if is_killed.is_set():
            is_killed.clear()
            raise SystemExit("killed")
        return compute(runner, *arguments)

    signal.signal(signal.SIGUSR1, lambda *_: is_killed.set())
    Runner._compute_chunks = compute_or_die  # type: ignore[method-assign]
    instance._FIRST_PAUSE_S = 0.01


if __name__ == "__main__":
    _make_killable()
    main()
