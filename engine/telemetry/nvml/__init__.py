"""NVML, NVIDIA's management library, behind one door."""

from __future__ import annotations

from engine.telemetry.nvml.door import RETRY_AFTER_S, Nvml
from engine.telemetry.nvml.health import (
    ClockEvent,
    EccReading,
    GpuHealth,
    GpuProcess,
    HealthInventory,
    MigReading,
    PcieReading,
    RemappedRows,
)
from engine.telemetry.nvml.reading import GpuInventory, GpuReading
from engine.telemetry.nvml.topology import GpuPair, GpuPath, Topology

__all__ = [
    "RETRY_AFTER_S",
    "ClockEvent",
    "EccReading",
    "GpuHealth",
    "GpuInventory",
    "GpuPair",
    "GpuPath",
    "GpuProcess",
    "GpuReading",
    "HealthInventory",
    "MigReading",
    "Nvml",
    "PcieReading",
    "RemappedRows",
    "Topology",
]
