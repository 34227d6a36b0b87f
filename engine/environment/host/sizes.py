"""Sizes, as bounds ask for them and as people read them."""

from __future__ import annotations

from engine.environment.check import CheckStatus, format_gb
from engine.environment.profile import GB, Bound


def judge_bytes(value_bytes: int, bound_gb: Bound) -> CheckStatus:
    """A number of bytes against a bound in decimal gigabytes."""
    return bound_gb.judge(value_bytes / GB)


def wanted(bound: Bound) -> float:
    """What to advise where a bound is not met: the recommendation, which is never below the requirement."""
    return bound.recommend or bound.require or 0.0


def format_size(value_bytes: float) -> str:
    """Bytes in decimal units: `67 MB`, from a gigabyte on `12.3 GB`."""
    return format_gb(value_bytes) if value_bytes >= GB else f"{value_bytes / 1e6:.0f} MB"


def format_cores(num_cores: float) -> str:
    """`8 cores`, `1 core`, `1.5 cores`."""
    return f"{num_cores:g} core{'' if num_cores == 1 else 's'}"
