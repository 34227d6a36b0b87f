"""The thread that takes a telemetry sample at a fixed interval and keeps the last fifteen minutes."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass

from engine.clock import Clock, SystemClock
from engine.errors import SettingsError
from engine.telemetry.host import HostReader, HostReading, ProcessReader, ProcessReading
from engine.telemetry.nvml import GpuInventory, Nvml

KEPT_S = 900.0
MIN_INTERVAL_S = 0.1
MAX_INTERVAL_S = 60.0
_JOIN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Sample:
    """Everything that was read at one moment; `taken_at_s` counts seconds since the epoch."""

    taken_at_s: float
    host: HostReading
    process: ProcessReading
    gpu: GpuInventory


class Sampler:
    """Takes a sample every `interval_s` seconds in a daemon thread of its own.

    A reading that raises costs that sample only: the thread goes on and `error` says what happened. The host
    and process readers belong to the thread from `start` on; `Nvml` may be shared and `close` leaves it open.

    Raises:
        SettingsError: `interval_s` lies outside 0.1 to 60 seconds.
    """

    def __init__(
        self,
        host: HostReader,
        process: ProcessReader,
        nvml: Nvml,
        interval_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        if not MIN_INTERVAL_S <= interval_s <= MAX_INTERVAL_S:
            raise SettingsError(
                f"The telemetry interval is {interval_s:g} s; "
                f"choose one from {MIN_INTERVAL_S:g} to {MAX_INTERVAL_S:g} s."
            )
        self._host = host
        self._process = process
        self._nvml = nvml
        self._interval_s = interval_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque(maxlen=math.ceil(KEPT_S / interval_s) + 1)
        self._error: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry-sampler", daemon=True)

    @property
    def error(self) -> str | None:
        """Why the newest attempt gave no sample; None when it gave one."""
        return self._error

    def start(self) -> None:
        """Start the thread; it takes the first sample at once. RuntimeError when it was started before."""
        self._thread.start()

    def close(self) -> None:
        """Stop and join the thread. One that hangs in a driver call is left behind as a daemon after 5 s."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_TIMEOUT_S)

    def latest(self) -> Sample | None:
        """The newest sample; None until the first one is taken."""
        with self._lock:
            return self._samples[-1] if self._samples else None

    def history(self, since_s: float | None = None) -> list[Sample]:
        """The last fifteen minutes, oldest first; with `since_s` only what came after that epoch time."""
        with self._lock:
            samples = list(self._samples)
        return samples if since_s is None else [sample for sample in samples if sample.taken_at_s > since_s]

    def take(self) -> None:
        """Take one sample now. For the sampler's thread, and for tests that have not started it."""
        try:
            sample = Sample(self._clock.wall(), self._host.read(), self._process.read(), self._nvml.read())
        except Exception as error:  # noqa: BLE001 - whatever a driver raises, the next sample may succeed
            self._error = f"{type(error).__name__}: {error}"
            return
        with self._lock:
            self._samples.append(sample)
            while self._samples[0].taken_at_s < sample.taken_at_s - KEPT_S:
                self._samples.popleft()
        self._error = None

    def _run(self) -> None:
        due_s = self._clock.monotonic()
        while not self._closing.is_set():
            self.take()
            # Keep to the grid of the start, and skip the points that a slow reading has missed.
            late_s = self._clock.monotonic() - due_s
            due_s += self._interval_s * (math.floor(late_s / self._interval_s) + 1)
            self._closing.wait(max(0.0, due_s - self._clock.monotonic()))
