from __future__ import annotations

from dashboard.components.gpu_cards import gpu_cards, gpu_title, memory_ratio, summarize_gpu
from engine.telemetry import GpuReading

FULL = GpuReading(
    1,
    name="NVIDIA H200",
    memory_used_bytes=30_000_000_000,
    memory_total_bytes=150_000_000_000,
    utilization_ratio=0.55,
    power_w=412.5,
    temperature_c=61,
)


def test_one_line() -> None:
    assert summarize_gpu(FULL) == "55 % busy · 30.0 GB of 150.0 GB · 412 W · 61 °C"
    assert summarize_gpu(GpuReading(0)) == "– busy · – of – · – · –"


def test_title_without_a_name() -> None:
    assert gpu_title(FULL) == "GPU 1 · NVIDIA H200"
    assert gpu_title(GpuReading(3)) == "GPU 3"


def test_memory_ratio_needs_both_numbers() -> None:
    assert memory_ratio(FULL) == 0.2
    assert memory_ratio(GpuReading(0, memory_used_bytes=5)) is None
    assert memory_ratio(GpuReading(0, memory_used_bytes=0, memory_total_bytes=0)) is None


def test_unknown_values_are_dashes() -> None:
    assert {card.value for card in gpu_cards(GpuReading(0))} == {"–"}
