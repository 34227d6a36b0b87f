"""One finding per GPU, brought together into one: what all cards share is said once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from engine.environment import check
from engine.environment.check import CheckStatus, Fact, Finding, worst
from engine.environment.profile import GpuProfile


class _Indexed(Protocol):
    @property
    def index(self) -> int: ...


G = TypeVar("G", bound=_Indexed)


def judge_each(gpus: Iterable[G], judge: Callable[[G], Finding]) -> Finding:
    """Every GPU judged for itself; the finding is that of the worst, and names which GPU is meant."""
    return combine({gpu.index: judge(gpu) for gpu in gpus})


def combine(findings: Mapping[int, Finding]) -> Finding:
    """Findings by GPU index as one. Facts are prefixed `gpu0_`; of remedies that repeat one is kept."""
    status = worst(finding.status for finding in findings.values())
    remedies = dict.fromkeys(finding.remedy for finding in findings.values() if finding.remedy)
    facts: dict[str, Fact] = {
        f"gpu{index}_{name}": value for index, finding in findings.items() for name, value in finding.facts.items()
    }
    return Finding(status, _observed(findings), " ".join(remedies) or None, facts)


def name_gpus(indices: Iterable[int]) -> str:
    """`GPU 0, 3`."""
    return "GPU " + ", ".join(map(str, indices))


def plural(number: int, noun: str) -> str:
    """`1 GPU`, `8 GPUs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def severity(profile: GpuProfile) -> CheckStatus:
    """What a GPU that cannot be used means: a failure where the profile needs one, else a warning."""
    return check.severity(profile.is_required)


def skip(reason: str) -> Finding:
    """A check that does not apply, with the reason."""
    return Finding(CheckStatus.SKIP, reason)


def _observed(findings: Mapping[int, Finding]) -> str:
    by_text: dict[str, list[int]] = {}
    for index, finding in findings.items():
        by_text.setdefault(finding.observed, []).append(index)
    if len(by_text) == 1:
        only = next(iter(by_text))
        return only if len(findings) == 1 else f"each of {len(findings)} GPUs: {only}"
    return "; ".join(f"{name_gpus(indices)}: {text}" for text, indices in by_text.items())
