"""The host and this process in a row of cards."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard.components.formats import (
    DASH,
    format_bytes,
    format_bytes_rate,
    format_ratio,
    format_seconds,
)
from dashboard.components.telemetry_history import Read, sparkline
from engine.telemetry import Sample


def show_card(
    label: str,
    value: str,
    note: str,
    samples: Sequence[Sample] = (),
    read: Read | None = None,
    help: str | None = None,
) -> None:
    """A value, a note under it in grey, and its line over `samples` where `read` says how."""
    st.metric(
        label,
        value,
        delta=note,
        delta_color="gray",
        delta_arrow="off",
        help=help,
        border=True,
        height="stretch",
        chart_data=None if read is None else sparkline(samples, read),
        chart_type="area",
    )


def memory_used(sample: Sample) -> int:
    """Bytes that are not available to a new program."""
    return sample.host.memory_total_bytes - sample.host.memory_available_bytes


def memory_note(sample: Sample) -> str:
    """Of how much: the machine's memory, or the limit of this container where that is less."""
    limit_bytes, total_bytes = sample.host.memory_limit_bytes, sample.host.memory_total_bytes
    if limit_bytes is not None and limit_bytes < total_bytes:
        return f"of {format_bytes(total_bytes)}, limit {format_bytes(limit_bytes)}"
    return f"of {format_bytes(total_bytes)}"


def cores_note(sample: Sample) -> str:
    """The number of cores and the load."""
    cores = sample.host.cpu_per_core_ratio
    num_cores = DASH if cores is None else f"{len(cores)} cores"
    return num_cores if sample.host.load_1m is None else f"{num_cores}, load {sample.host.load_1m:.2f}"


def show_host_glance(sample: Sample, samples: Sequence[Sample] = ()) -> None:
    """CPU and memory: what an overview needs."""
    host = sample.host
    with st.container(horizontal=True):
        show_card("CPU", format_ratio(host.cpu_ratio), cores_note(sample), samples, lambda one: one.host.cpu_ratio)
        show_card("Memory used", format_bytes(memory_used(sample)), memory_note(sample), samples, memory_used)


def show_host_rates(sample: Sample, samples: Sequence[Sample]) -> None:
    """The disk under the console's home, and what passes disk and network."""
    host = sample.host
    with st.container(horizontal=True):
        show_card(
            "Disk free",
            format_bytes(host.disk_free_bytes),
            f"of {format_bytes(host.disk_total_bytes)}",
            help="The file system under the console's home folder.",
        )
        show_card(
            "Disk read",
            format_bytes_rate(host.disk_read_bytes_per_s),
            f"{format_bytes_rate(host.disk_write_bytes_per_s)} written",
            samples,
            lambda one: one.host.disk_read_bytes_per_s,
        )
        show_card(
            "Network received",
            format_bytes_rate(host.net_received_bytes_per_s),
            f"{format_bytes_rate(host.net_sent_bytes_per_s)} sent",
            samples,
            lambda one: one.host.net_received_bytes_per_s,
        )


def show_process(sample: Sample, samples: Sequence[Sample]) -> None:
    """What the console itself takes."""
    process = sample.process
    cores = DASH if process.cpu_ratio is None else f"{process.cpu_ratio:.2f} cores"
    files = DASH if process.num_open_files is None else str(process.num_open_files)
    with st.container(horizontal=True):
        show_card(
            "Memory (RSS)",
            format_bytes(process.rss_bytes),
            "weights and caches included",
            samples,
            lambda one: one.process.rss_bytes,
        )
        show_card("CPU", cores, "of this process", samples, lambda one: one.process.cpu_ratio)
        show_card("Threads", str(process.num_threads), f"{files} open files")
        show_card("Up for", format_seconds(float(round(process.uptime_s))), "since this process began")
