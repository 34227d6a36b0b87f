"""How a download stands, as a sentence and a fraction: pure arithmetic over bytes and seconds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_WINDOW_S = 5.0
_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


@dataclass(frozen=True, slots=True)
class TransferState:
    """Bytes here of the bytes wanted, None where the hub gives no sizes; bytes a second, None before it is known."""

    done_bytes: int
    total_bytes: int | None
    bytes_per_s: float | None = None
    note: str = ""

    @property
    def fraction(self) -> float | None:
        if not self.total_bytes:
            return None
        return min(1.0, self.done_bytes / self.total_bytes)

    @property
    def left_s(self) -> float | None:
        """At this speed; None where there is none."""
        if self.total_bytes is None or not self.bytes_per_s:
            return None
        return max(0, self.total_bytes - self.done_bytes) / self.bytes_per_s

    def __str__(self) -> str:
        """Such as `downloading 1.2 of 3.4 GB, 120 MB/s, 18 s left`."""
        words = [f"downloading {_amount(self.done_bytes, self.total_bytes)}"]
        if self.note:
            words.append(self.note)
        elif self.done_bytes == self.total_bytes:
            words.append("storing")
        elif self.bytes_per_s is not None:
            words.append(f"{_size(self.bytes_per_s)}/s")
            if self.left_s is not None:
                words.append(f"{describe_duration(self.left_s)} left")
        return ", ".join(words)


class Speedometer:
    """Bytes a second over the last five seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def read(self, now_s: float, received_bytes: int) -> float | None:
        """Note how much has come; None until half a second has passed."""
        self._samples.append((now_s, received_bytes))
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()
        began_s, began_bytes = self._samples[0]
        return None if now_s - began_s < 0.5 else max(0, received_bytes - began_bytes) / (now_s - began_s)


def describe_size(num_bytes: float) -> str:
    """Decimal units, as disks and hubs count: `3.4 GB`."""
    return _size(num_bytes)


def describe_duration(seconds: float) -> str:
    """`18 s`, `3 min`, `2.5 h`."""
    if seconds < 99.5:
        return f"{max(1, round(seconds))} s"
    if seconds < 99.5 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def _amount(done_bytes: int, total_bytes: int | None) -> str:
    if total_bytes is None:
        return _size(done_bytes)
    unit, factor = _unit(total_bytes)
    return f"{_number(done_bytes / factor)} of {_number(total_bytes / factor)} {unit}"


def _size(num_bytes: float) -> str:
    unit, factor = _unit(num_bytes)
    return f"{_number(num_bytes / factor)} {unit}"


def _unit(num_bytes: float) -> tuple[str, float]:
    return next(((unit, factor) for unit, factor in _UNITS if num_bytes >= factor), ("B", 1.0))


def _number(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 9.95 and value != int(value) else f"{value:.0f}"
