"""Each GPU in a row of cards, or the one reason why there is none."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.cards import Card, show_cards
from dashboard.components.formats import DASH, format_bytes, format_ratio, format_with_unit, plain
from dashboard.components.telemetry_history import of_gpu
from engine.telemetry import GpuInventory, GpuReading, Sample


def gpu_title(gpu: GpuReading) -> str:
    """`GPU 0 · NVIDIA H200`."""
    return f"GPU {gpu.index}" + (f" · {gpu.name}" if gpu.name else "")


def memory_ratio(gpu: GpuReading) -> float | None:
    """The used share of the memory; None where either number is missing."""
    if gpu.memory_used_bytes is None or not gpu.memory_total_bytes:
        return None
    return gpu.memory_used_bytes / gpu.memory_total_bytes


def format_clock(hertz: int | None) -> str:
    """`1,980 MHz`."""
    return format_with_unit(None if hertz is None else hertz / 1e6, "MHz")


def summarize_gpu(gpu: GpuReading) -> str:
    """One line: utilization, memory, power, temperature."""
    return " · ".join(
        (
            f"{format_ratio(gpu.utilization_ratio)} busy",
            f"{format_bytes(gpu.memory_used_bytes)} of {format_bytes(gpu.memory_total_bytes)}",
            format_with_unit(gpu.power_w, "W"),
            format_with_unit(gpu.temperature_c, "°C"),
        )
    )


def show_no_gpu(inventory: GpuInventory) -> None:
    """Why there is no GPU to show, in one line."""
    st.caption(f":material/developer_board_off: No GPU: {plain(inventory.reason or 'the driver lists none.')}")


def show_gpu_glance(inventory: GpuInventory) -> None:
    """A line a GPU with its memory as a bar: what an overview needs."""
    if not inventory.gpus:
        show_no_gpu(inventory)
    for gpu in inventory.gpus:
        text = f"**{plain(gpu_title(gpu))}**  {summarize_gpu(gpu)}"
        st.progress(memory_ratio(gpu) or 0.0, text=text)
        if gpu.error:
            st.error(plain(gpu.error), icon=":material/error:")


def gpu_cards(gpu: GpuReading) -> tuple[Card, ...]:
    """What the driver tells of one GPU, a dash for what it does not."""
    return (
        Card(
            "Memory used",
            format_bytes(gpu.memory_used_bytes),
            f"of {format_bytes(gpu.memory_total_bytes)}",
            of_gpu(gpu.index, "memory_used_bytes"),
        ),
        Card(
            "Utilization",
            format_ratio(gpu.utilization_ratio),
            f"memory bus {format_ratio(gpu.memory_utilization_ratio)}",
            of_gpu(gpu.index, "utilization_ratio"),
            help="The share of time in which at least one kernel ran.",
        ),
        Card(
            "Power",
            format_with_unit(gpu.power_w, "W"),
            f"limit {format_with_unit(gpu.power_limit_w, 'W')}",
            of_gpu(gpu.index, "power_w"),
        ),
        Card(
            "Temperature",
            format_with_unit(gpu.temperature_c, "°C"),
            f"fan {format_ratio(gpu.fan_ratio)}",
            of_gpu(gpu.index, "temperature_c"),
        ),
        Card(
            "SM clock",
            format_clock(gpu.sm_clock_hz),
            f"of {format_clock(gpu.sm_clock_max_hz)}",
            of_gpu(gpu.index, "sm_clock_hz"),
            help=f"The memory runs at {format_clock(gpu.memory_clock_hz)}.",
        ),
    )


def show_gpus(sample: Sample, samples: Sequence[Sample]) -> None:
    """Every GPU with all that the driver tells."""
    inventory = sample.gpu
    if not inventory.gpus:
        show_no_gpu(inventory)
        return
    st.caption(f"Driver {inventory.driver_version or DASH} · supports CUDA {inventory.cuda_driver_version or DASH}")
    for gpu in inventory.gpus:
        capability = DASH if gpu.compute_capability is None else ".".join(map(str, gpu.compute_capability))
        about = f"compute capability {capability} · {plain(gpu.uuid or DASH)}"
        st.markdown(f"**{plain(gpu_title(gpu))}** :small[:gray[{about}]]")
        if gpu.error:
            st.error(plain(gpu.error), icon=":material/error:")
        show_cards(gpu_cards(gpu), samples)
