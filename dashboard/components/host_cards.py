"""What the cards of the host and of this process say."""

from __future__ import annotations

from dashboard.components.cards import Card
from dashboard.components.formats import DASH, format_bytes, format_bytes_rate, format_ratio, format_whole_seconds
from engine.telemetry import HostReading, ProcessReading, Sample


def memory_used(sample: Sample) -> int:
    """Bytes that are not available to a new program."""
    return sample.host.memory_total_bytes - sample.host.memory_available_bytes


def memory_note(host: HostReading) -> str:
    """Of how much: the machine's memory, and the limit of this container where that is less."""
    limit_bytes, total_bytes = host.memory_limit_bytes, host.memory_total_bytes
    if limit_bytes is not None and limit_bytes < total_bytes:
        return f"of {format_bytes(total_bytes)}, limit {format_bytes(limit_bytes)}"
    return f"of {format_bytes(total_bytes)}"


def cores_note(host: HostReading) -> str:
    """The number of cores and the load."""
    cores = DASH if host.cpu_per_core_ratio is None else f"{len(host.cpu_per_core_ratio)} cores"
    return cores if host.load_1m is None else f"{cores}, load {host.load_1m:.2f}"


def glance_cards(sample: Sample) -> tuple[Card, ...]:
    """CPU and memory: what an overview needs."""
    return (
        Card("CPU", format_ratio(sample.host.cpu_ratio), cores_note(sample.host), lambda one: one.host.cpu_ratio),
        Card("Memory used", format_bytes(memory_used(sample)), memory_note(sample.host), memory_used),
    )


def host_cards(sample: Sample) -> tuple[Card, ...]:
    """CPU, memory, the disk under the console's home, and what passes disk and network."""
    host = sample.host
    return (
        *glance_cards(sample),
        Card(
            "Disk free",
            format_bytes(host.disk_free_bytes),
            f"of {format_bytes(host.disk_total_bytes)}",
            lambda one: one.host.disk_free_bytes,
            help="The file system under the console's home folder.",
        ),
        Card(
            "Disk read",
            format_bytes_rate(host.disk_read_bytes_per_s),
            f"{format_bytes_rate(host.disk_write_bytes_per_s)} written",
            lambda one: one.host.disk_read_bytes_per_s,
        ),
        Card(
            "Network in",
            format_bytes_rate(host.net_received_bytes_per_s),
            f"{format_bytes_rate(host.net_sent_bytes_per_s)} out",
            lambda one: one.host.net_received_bytes_per_s,
        ),
    )


def process_cards(process: ProcessReading) -> tuple[Card, ...]:
    """What the console itself takes."""
    cores = DASH if process.cpu_ratio is None else f"{process.cpu_ratio:.2f} cores"
    files = DASH if process.num_open_files is None else str(process.num_open_files)
    return (
        Card(
            "Memory (RSS)",
            format_bytes(process.rss_bytes),
            "weights and caches included",
            lambda one: one.process.rss_bytes,
        ),
        Card("CPU", cores, "of this process", lambda one: one.process.cpu_ratio),
        Card("Threads", str(process.num_threads), f"{files} open files", lambda one: one.process.num_threads),
        Card("Up for", format_whole_seconds(process.uptime_s), "since this process began"),
    )
