from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pynvml
import pytest

from engine.errors import SettingsError
from engine.telemetry import HostReader, HostReading, Nvml, ProcessReader, Sampler
from tests.engine.telemetry.fakes import FakeBinding, FakeGpu, ManualClock


class StumblingHost(HostReader):
    """A host reader that raises while `is_broken`."""

    is_broken = False

    def read(self) -> HostReading:
        if self.is_broken:
            raise OSError("the disk is gone")
        return super().read()


class HangingHost(HostReader):
    """A host reader that waits until it is released."""

    released = threading.Event()

    def read(self) -> HostReading:
        self.released.wait(20)
        return super().read()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def host(tmp_path: Path) -> StumblingHost:
    return StumblingHost(tmp_path)


@pytest.fixture
def running(host: StumblingHost) -> Iterator[Sampler]:
    sampler = Sampler(host, ProcessReader(), Nvml(FakeBinding(FakeGpu())), interval_s=0.1)
    sampler.start()
    yield sampler
    sampler.close()


def wait_until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition never came true"
        time.sleep(0.01)


def test_nothing_before_the_start(host: StumblingHost) -> None:
    sampler = Sampler(host, ProcessReader(), Nvml(FakeBinding()))
    assert sampler.latest() is None
    assert sampler.history() == []
    assert sampler.error is None
    sampler.close()


def _count_sampler_threads() -> int:
    """Consoles of other tests may have samplers of their own."""
    return sum(thread.name == "telemetry-sampler" for thread in threading.enumerate())


def test_the_thread_samples_and_close_joins_it(running: Sampler) -> None:
    wait_until(lambda: len(running.history()) >= 3)
    num_before = _count_sampler_threads()
    running.close()
    assert _count_sampler_threads() == num_before - 1
    history = running.history()
    assert running.latest() == history[-1]
    assert history[-1].gpu.gpus[0].name == "NVIDIA H200"
    assert history[-1].host.cpu_ratio is not None
    times = [sample.taken_at_s for sample in history]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(time.time(), abs=10)


def test_a_sampler_starts_once(running: Sampler) -> None:
    with pytest.raises(RuntimeError):
        running.start()


def test_a_reading_that_raises_does_not_end_the_thread(running: Sampler, host: StumblingHost) -> None:
    host.is_broken = True
    wait_until(lambda: running.error is not None)
    assert running.error == "OSError: the disk is gone"
    host.is_broken = False
    wait_until(lambda: running.error is None)
    num_samples = len(running.history())
    wait_until(lambda: len(running.history()) > num_samples)


def test_a_driver_without_gpus_is_a_sample_not_an_error(host: StumblingHost) -> None:
    nvml = Nvml(FakeBinding(init_error=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND))
    sampler = Sampler(host, ProcessReader(), nvml)
    sampler.take()
    latest = sampler.latest()
    assert latest is not None
    assert latest.gpu.reason is not None
    assert sampler.error is None


def test_history_keeps_fifteen_minutes(host: StumblingHost, clock: ManualClock) -> None:
    sampler = Sampler(host, ProcessReader(), Nvml(FakeBinding()), interval_s=60, clock=clock)
    for _ in range(40):
        clock.seconds += 60
        sampler.take()
    times = [sample.taken_at_s for sample in sampler.history()]
    assert times == [clock.seconds - 60 * age for age in range(15, -1, -1)]


def test_history_drops_what_is_old_after_a_pause(host: StumblingHost, clock: ManualClock) -> None:
    sampler = Sampler(host, ProcessReader(), Nvml(FakeBinding()), clock=clock)
    sampler.take()
    clock.seconds += 3_600
    sampler.take()
    assert [sample.taken_at_s for sample in sampler.history()] == [clock.seconds]


def test_history_since_leaves_out_the_moment_itself(host: StumblingHost, clock: ManualClock) -> None:
    sampler = Sampler(host, ProcessReader(), Nvml(FakeBinding()), clock=clock)
    for _ in range(3):
        clock.seconds += 1
        sampler.take()
    assert [sample.taken_at_s for sample in sampler.history(clock.seconds - 1)] == [clock.seconds]
    assert sampler.history(clock.seconds) == []


@pytest.mark.parametrize("interval_s", [0.0, 0.05, 60.5, float("nan")])
def test_an_interval_out_of_bounds_is_refused(host: StumblingHost, interval_s: float) -> None:
    with pytest.raises(SettingsError, match=r"choose one from 0\.1 to 60 s"):
        Sampler(host, ProcessReader(), Nvml(FakeBinding()), interval_s=interval_s)


def test_close_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.telemetry.sampler._JOIN_TIMEOUT_S", 0.05)
    sampler = Sampler(HangingHost(tmp_path), ProcessReader(), Nvml(FakeBinding()))
    sampler.start()
    started_s = time.monotonic()
    sampler.close()
    assert time.monotonic() - started_s < 15
    HangingHost.released.set()
