"""What the host and its GPUs are doing: readings with units in their names, and a thread that takes them."""

from __future__ import annotations

from engine.telemetry.host import HostReader, HostReading, ProcessReader, ProcessReading
from engine.telemetry.nvml import GpuInventory, GpuReading, Nvml
from engine.telemetry.sampler import Sample, Sampler

__all__ = [
    "GpuInventory",
    "GpuReading",
    "HostReader",
    "HostReading",
    "Nvml",
    "ProcessReader",
    "ProcessReading",
    "Sample",
    "Sampler",
]
