"""Which charts there are for the telemetry that is here."""

from __future__ import annotations

from dashboard.components.host_cards import memory_used
from dashboard.components.telemetry_history import Chart, of_gpu, scaled
from engine.telemetry import Sample

_PER_GB = 1e-9
_PER_MB = 1e-6


def host_charts() -> tuple[Chart, ...]:
    """The host and this process; every machine has them."""
    return (
        Chart("CPU", "%", {"all cores": scaled(lambda sample: sample.host.cpu_ratio, 100)}, top=100),
        Chart(
            "Memory",
            "GB",
            {
                "host, used": scaled(memory_used, _PER_GB),
                "this process": scaled(lambda sample: sample.process.rss_bytes, _PER_GB),
            },
        ),
        Chart(
            "Disk",
            "MB/s",
            {
                "read": scaled(lambda sample: sample.host.disk_read_bytes_per_s, _PER_MB),
                "written": scaled(lambda sample: sample.host.disk_write_bytes_per_s, _PER_MB),
            },
        ),
        Chart(
            "Network",
            "MB/s",
            {
                "received": scaled(lambda sample: sample.host.net_received_bytes_per_s, _PER_MB),
                "sent": scaled(lambda sample: sample.host.net_sent_bytes_per_s, _PER_MB),
            },
        ),
    )


def gpu_charts(sample: Sample) -> tuple[Chart, ...]:
    """A line a GPU; none where there is no GPU."""
    indices = [gpu.index for gpu in sample.gpu.gpus]
    if not indices:
        return ()
    return (
        _gpu_chart("GPU utilization", "%", "utilization_ratio", indices, 100, top=100),
        _gpu_chart("GPU memory", "GB", "memory_used_bytes", indices, _PER_GB),
        _gpu_chart("GPU power", "W", "power_w", indices, 1.0),
        _gpu_chart("GPU temperature", "°C", "temperature_c", indices, 1.0),
    )


def _gpu_chart(title: str, unit: str, field: str, indices: list[int], scale: float, top: float | None = None) -> Chart:
    return Chart(title, unit, {f"GPU {index}": of_gpu(index, field, scale) for index in indices}, top)
