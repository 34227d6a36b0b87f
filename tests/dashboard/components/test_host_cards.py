from __future__ import annotations

from dataclasses import replace

from dashboard.components.cards import Card
from dashboard.components.host_cards import cores_note, host_cards, memory_note, process_cards
from tests.dashboard.components.samples import HOST, PROCESS, sample


def by_label(cards: tuple[Card, ...]) -> dict[str, tuple[str, str]]:
    return {card.label: (card.value, card.note) for card in cards}


def test_host() -> None:
    assert by_label(host_cards(sample())) == {
        "CPU": ("50 %", "2 cores, load 1.25"),
        "Memory used": ("6.0 GB", "of 16.0 GB"),
        "Disk free": ("120.0 GB", "of 500.0 GB"),
        "Disk read": ("2.0 MB/s", "3.0 MB/s written"),
        "Network in": ("4.0 MB/s", "5.0 MB/s out"),
    }


def test_what_cannot_be_told_is_a_dash() -> None:
    blind = replace(
        HOST,
        cpu_ratio=None,
        cpu_per_core_ratio=None,
        load_1m=None,
        disk_total_bytes=None,
        disk_free_bytes=None,
        disk_read_bytes_per_s=None,
        disk_write_bytes_per_s=None,
        net_received_bytes_per_s=None,
        net_sent_bytes_per_s=None,
    )
    found = by_label(host_cards(replace(sample(), host=blind)))
    assert found["CPU"] == ("–", "–")
    assert found["Disk free"] == ("–", "of –")
    assert found["Disk read"] == ("–", "– written")
    assert found["Network in"] == ("–", "– out")
    assert cores_note(blind) == "–"


def test_limit_is_named_where_it_is_below_the_machine() -> None:
    assert memory_note(replace(HOST, memory_limit_bytes=8_000_000_000)) == "of 16.0 GB, limit 8.0 GB"
    assert memory_note(replace(HOST, memory_limit_bytes=32_000_000_000)) == "of 16.0 GB"


def test_process() -> None:
    assert by_label(process_cards(PROCESS)) == {
        "Memory (RSS)": ("1.5 GB", "weights and caches included"),
        "CPU": ("1.50 cores", "of this process"),
        "Threads": ("24", "33 open files"),
        "Up for": ("1 h 2 min", "since this process began"),
    }
    assert by_label(process_cards(replace(PROCESS, cpu_ratio=None, num_open_files=None)))["CPU"][0] == "–"
