"""Memory of this process apart from files: what the system cannot take back without a swap.

A checkpoint on a CPU is mapped: weights that keep their dtype stay pages of the file, and pages of weights that were
converted linger for as long as one neighbour is in use. The latter count as resident, but they are the system's to
take back, so resident memory as a whole would charge a model twice.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from pathlib import Path

import psutil

_STATUS = Path("/proc/self/status")
_MAPS = Path("/proc/self/maps")


def read_anonymous_bytes() -> int:
    """Resident memory that belongs to no file; all resident memory where the system does not tell them apart."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        lines = []
    told = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:")), None)
    return psutil.Process().memory_info().rss if told is None else told


def mapped_bytes(blocks: Iterable[tuple[int, int]]) -> int:
    """How many bytes of `blocks` (address, size) are pages of files; 0 where the system does not say."""
    blocks = list(blocks)
    mapped = find_mapped(address for address, _ in blocks)
    return sum(size for address, size in blocks if address in mapped)


def find_mapped(addresses: Iterable[int]) -> frozenset[int]:
    """Those of `addresses` that lie in pages of files; none where the system does not say."""
    ranges = _file_ranges()
    begins = [begin for begin, _ in ranges]
    found = set()
    for address in addresses:
        place = bisect.bisect_right(begins, address) - 1
        if place >= 0 and address < ranges[place][1]:
            found.add(address)
    return frozenset(found)


def _file_ranges() -> list[tuple[int, int]]:
    """Begin and end of every mapping of a file, rising."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return []
    fields = (line.split(maxsplit=5) for line in lines)
    spans = [entry[0].split("-") for entry in fields if len(entry) == 6 and entry[5].startswith("/")]
    return sorted((int(begin, 16), int(end, 16)) for begin, end in spans)
