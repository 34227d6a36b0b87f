"""The host and this process, read through psutil.

Rates need two readings: they are None in a reader's first reading and wherever a counter went backwards.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from engine.clock import Clock, SystemClock
from engine.telemetry.cgroup import read_cgroup_memory
from engine.telemetry.rates import CpuTimes, busy_ratios, rate_per_s, rates_per_s


@dataclass(frozen=True)
class HostReading:
    """The machine at one moment. Ratios run from 0 to 1, rates are bytes a second, None is "cannot be told".

    Disk totals are those of the file system under the console's home folder; disk rates cover all disks,
    network rates all interfaces but loopback.
    """

    cpu_ratio: float | None
    cpu_per_core_ratio: tuple[float, ...] | None
    load_1m: float | None
    memory_total_bytes: int
    memory_available_bytes: int
    memory_limit_bytes: int | None
    disk_total_bytes: int | None
    disk_free_bytes: int | None
    disk_read_bytes_per_s: float | None
    disk_write_bytes_per_s: float | None
    net_received_bytes_per_s: float | None
    net_sent_bytes_per_s: float | None


@dataclass(frozen=True)
class ProcessReading:
    """This process. `cpu_ratio` counts cores: 1.5 is one and a half of them busy; None at first."""

    rss_bytes: int
    cpu_ratio: float | None
    num_threads: int
    num_open_files: int | None
    uptime_s: float


@dataclass(frozen=True)
class _Counters:
    at_s: float
    cores: tuple[CpuTimes, ...]
    disk: tuple[int, int] | None
    network: tuple[int, int]


class HostReader:
    """Takes host readings for one thread; rates cover the time since its previous reading.

    `home` may not exist yet: the nearest folder above it that does tells the disk.
    """

    def __init__(self, home: Path, clock: Clock | None = None) -> None:
        self._home = home
        self._clock = clock or SystemClock()
        self._before: _Counters | None = None

    def read(self) -> HostReading:
        """Read now; takes about a millisecond and never waits."""
        before, now = self._before, self._count()
        self._before = now
        cores = busy_ratios(before.cores, now.cores) if before else None
        elapsed_s = now.at_s - before.at_s if before else 0.0
        disk = rates_per_s(before.disk if before else None, now.disk, elapsed_s)
        network = rates_per_s(before.network if before else None, now.network, elapsed_s)
        memory, limit = psutil.virtual_memory(), read_cgroup_memory()
        disk_total, disk_free = read_disk(self._home)
        return HostReading(
            cpu_ratio=sum(cores) / len(cores) if cores else None,
            cpu_per_core_ratio=cores,
            load_1m=_load_1m(),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            memory_limit_bytes=limit.limit_bytes if limit else None,
            disk_total_bytes=disk_total,
            disk_free_bytes=disk_free,
            disk_read_bytes_per_s=disk[0],
            disk_write_bytes_per_s=disk[1],
            net_received_bytes_per_s=network[0],
            net_sent_bytes_per_s=network[1],
        )

    def _count(self) -> _Counters:
        outside = [card for name, card in psutil.net_io_counters(pernic=True).items() if name != "lo"]
        return _Counters(
            at_s=self._clock.monotonic(),
            cores=_core_times(),
            disk=_disk_bytes(),
            network=(sum(card.bytes_recv for card in outside), sum(card.bytes_sent for card in outside)),
        )


class ProcessReader:
    """Takes readings of this process for one thread."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._process = psutil.Process()
        self._clock = clock or SystemClock()
        self._before: tuple[float, float] | None = None

    def read(self) -> ProcessReading:
        """Read now; raises psutil.Error where the process table cannot be read."""
        process = self._process
        times = process.cpu_times()
        now = (self._clock.monotonic(), times.user + times.system)
        before, self._before = self._before, now
        return ProcessReading(
            rss_bytes=process.memory_info().rss,
            cpu_ratio=rate_per_s(before[1], now[1], now[0] - before[0]) if before else None,
            num_threads=process.num_threads(),
            num_open_files=process.num_fds() if hasattr(process, "num_fds") else None,
            uptime_s=max(0.0, self._clock.wall() - process.create_time()),
        )


def read_disk(folder: Path) -> tuple[int, int] | tuple[None, None]:
    """Total and free bytes under `folder`, or under the nearest folder above it that exists."""
    existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), None)
    if existing is None:
        return None, None
    try:
        usage = shutil.disk_usage(existing)
    except OSError:
        return None, None
    return usage.total, usage.free


def _core_times() -> tuple[CpuTimes, ...]:
    cores = psutil.cpu_times(percpu=True)
    # Linux counts guest time inside user time already, so it is left out of the total.
    return tuple(
        CpuTimes(
            total_s=sum(seconds for name, seconds in core._asdict().items() if not name.startswith("guest")),
            idle_s=core.idle + getattr(core, "iowait", 0.0),
        )
        for core in cores
    )


def _disk_bytes() -> tuple[int, int] | None:
    try:
        counters = psutil.disk_io_counters()
    except (NotImplementedError, OSError):
        return None
    return (counters.read_bytes, counters.write_bytes) if counters else None


def _load_1m() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
