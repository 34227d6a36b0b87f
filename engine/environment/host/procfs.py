"""Numbers out of /proc."""

from __future__ import annotations

import math
import re
from pathlib import Path

KIB = 1024


def read_text(file: Path) -> str | None:
    """The text of a file; None where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def read_number(file: Path) -> int | None:
    """The number that is all of a file, as under /proc/sys; None where there is no such file or number."""
    text = (read_text(file) or "").strip()
    return int(text) if re.fullmatch(r"-?\d+", text) else None


def read_meminfo(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes by name (`MemTotal`); empty where it cannot be read."""
    lines = (read_text(root / "proc/meminfo") or "").splitlines()
    found = (re.fullmatch(r"(\S+):\s+(\d+)( kB)?", line.strip()) for line in lines)
    return {match[1]: int(match[2]) * (KIB if match[3] else 1) for match in found if match}


def read_limits(root: Path) -> dict[str, tuple[float, float]]:
    """/proc/self/limits: soft and hard limit by name (`Max open files`); infinite is unlimited."""
    lines = (read_text(root / "proc/self/limits") or "").splitlines()
    found = (re.match(r"(Max .*?)\s{2,}(\d+|unlimited)\s+(\d+|unlimited)", line) for line in lines)
    return {match[1]: (_limit(match[2]), _limit(match[3])) for match in found if match}


def _limit(text: str) -> float:
    return math.inf if text == "unlimited" else int(text)
