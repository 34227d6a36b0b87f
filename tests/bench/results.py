"""One figure, the lines they are written as, and the table they are printed as."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value. `ratio` is ours over the peer's such that above 1 is better; None without a peer."""

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None


def compare(name: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float], *, more: bool) -> Figure:
    """Medians of paired runs, and the median of the pairs' ratios, which holds when the machine's speed drifts.

    Args:
        more: whether more is better.
    """
    ratios = [a / b if more else b / a for a, b in zip(ours, theirs, strict=True)]
    return Figure(
        name, statistics.median(ours), unit, peer, statistics.median(theirs), round(statistics.median(ratios), 3)
    )


def write(figures: Iterable[Figure], file: Path) -> None:
    """One JSON object a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(asdict(figure)) + "\n" for figure in figures))


def show(figure: Figure) -> str:
    """A line of the table."""
    line = f"{figure.name:36} {figure.value:12.4g} {figure.unit:8}"
    if figure.peer is None or figure.peer_value is None or figure.ratio is None:
        return line
    return f"{line} {figure.peer:28} {figure.peer_value:12.4g}   ratio {figure.ratio:.2f}"


def describe_machine() -> str:
    """Processor, cores and system, for the head of the table."""
    import psutil

    return f"{platform.machine()}, {psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB"
