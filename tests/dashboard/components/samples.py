"""Telemetry samples for tests of components: round numbers that can be recognised."""

from __future__ import annotations

from dataclasses import replace

from engine.telemetry import GpuInventory, GpuReading, HostReading, ProcessReading, Sample

HOST = HostReading(
    cpu_ratio=0.5,
    cpu_per_core_ratio=(0.4, 0.6),
    load_1m=1.25,
    memory_total_bytes=16_000_000_000,
    memory_available_bytes=10_000_000_000,
    memory_limit_bytes=None,
    disk_total_bytes=500_000_000_000,
    disk_free_bytes=120_000_000_000,
    disk_read_bytes_per_s=2e6,
    disk_write_bytes_per_s=3e6,
    net_received_bytes_per_s=4e6,
    net_sent_bytes_per_s=5e6,
)
PROCESS = ProcessReading(rss_bytes=1_500_000_000, cpu_ratio=1.5, num_threads=24, num_open_files=33, uptime_s=3_720.0)


def sample(*gpus: GpuReading, cpu_ratio: float | None = 0.5) -> Sample:
    """One sample of `HOST` with these GPUs."""
    inventory = GpuInventory(gpus, reason=None if gpus else "No NVIDIA driver library is installed.")
    return Sample(1_700_000_000.0, replace(HOST, cpu_ratio=cpu_ratio), PROCESS, inventory)
