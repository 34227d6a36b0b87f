from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import psutil
import pytest

from engine.telemetry import host
from engine.telemetry.cgroup import CgroupMemory
from engine.telemetry.host import HostReader, ProcessReader, read_disk
from tests.engine.telemetry.fakes import ManualClock


class CoreTimes(NamedTuple):
    """The fields of psutil's Linux tuple that count; guest time is part of user time."""

    user: float
    idle: float
    iowait: float
    guest: float


def test_the_first_reading_has_totals_and_no_rates(tmp_path: Path) -> None:
    reading = HostReader(tmp_path).read()
    assert reading.cpu_ratio is None
    assert reading.cpu_per_core_ratio is None
    assert reading.disk_read_bytes_per_s is None
    assert reading.net_received_bytes_per_s is None
    assert 0 < reading.memory_available_bytes <= reading.memory_total_bytes
    assert reading.disk_total_bytes is not None
    assert reading.disk_total_bytes > 0


def test_rates_cover_the_time_between_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    reader = HostReader(tmp_path, clock)
    script_counters(monkeypatch, busy_s=50.0, idle_s=50.0, moved=1_000)
    reader.read()
    clock.seconds += 4.0
    script_counters(monkeypatch, busy_s=53.0, idle_s=51.0, moved=9_000)
    reading = reader.read()
    assert reading.cpu_per_core_ratio == (0.75, 0.75)
    assert reading.cpu_ratio == 0.75
    assert reading.disk_read_bytes_per_s == 2_000
    assert reading.disk_write_bytes_per_s == 4_000
    assert (reading.net_received_bytes_per_s, reading.net_sent_bytes_per_s) == (2_000, 6_000)


def script_counters(monkeypatch: pytest.MonkeyPatch, busy_s: float, idle_s: float, moved: int) -> None:
    cores = [CoreTimes(user=busy_s, idle=idle_s / 2, iowait=idle_s / 2, guest=busy_s)] * 2
    card = SimpleNamespace(bytes_recv=moved, bytes_sent=3 * moved)
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: cores)
    monkeypatch.setattr(psutil, "disk_io_counters", lambda: SimpleNamespace(read_bytes=moved, write_bytes=2 * moved))
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: {"lo": card, "eth0": card})


@pytest.mark.parametrize("counters", [lambda: None, lambda: raise_not_implemented()])
def test_a_host_without_disk_counters_has_no_disk_rates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counters: object
) -> None:
    monkeypatch.setattr(psutil, "disk_io_counters", counters)
    clock = ManualClock()
    reader = HostReader(tmp_path, clock)
    reader.read()
    clock.seconds += 1.0
    reading = reader.read()
    assert reading.disk_read_bytes_per_s is None
    assert reading.net_sent_bytes_per_s is not None


def raise_not_implemented() -> None:
    raise NotImplementedError("no /proc/diskstats")


def test_the_cgroup_limit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "read_cgroup_memory", lambda: CgroupMemory(5_000, 1_000))
    assert HostReader(tmp_path).read().memory_limit_bytes == 5_000
    monkeypatch.setattr(host, "read_cgroup_memory", lambda: None)
    assert HostReader(tmp_path).read().memory_limit_bytes is None


def test_disk_of_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert read_disk(tmp_path / "not" / "yet")[0] == read_disk(tmp_path)[0]


def test_disk_that_cannot_be_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(path)

    monkeypatch.setattr("shutil.disk_usage", refuse)
    assert read_disk(tmp_path) == (None, None)


def test_process_cpu_counts_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    reader = ProcessReader(clock)
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda self: SimpleNamespace(user=10.0, system=1.0))
    assert reader.read().cpu_ratio is None
    clock.seconds += 2.0
    monkeypatch.setattr(psutil.Process, "cpu_times", lambda self: SimpleNamespace(user=12.5, system=1.5))
    assert reader.read().cpu_ratio == 1.5


def test_process_reading_of_this_process(tmp_path: Path) -> None:
    reader = ProcessReader()
    before = reader.read()
    with (tmp_path / "open").open("w", encoding="ascii"):
        after = reader.read()
    assert before.num_open_files is not None
    assert after.num_open_files == before.num_open_files + 1
    assert after.num_threads >= threading.active_count()
    assert after.rss_bytes > 1_000_000
    assert 0 < before.uptime_s <= after.uptime_s
