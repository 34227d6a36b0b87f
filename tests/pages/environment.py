"""Checks with known outcomes in place of this machine's, for the pages that show reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event

from engine.environment import Check, CheckContext, CheckStatus, Finding

FULL_DISK = "2 GB at /data_1 | *full*"
REMEDY = "Run `df -h` and free space."


@dataclass
class FakeChecks:
    """An operating system that is right, a disk as told, and a deep check. `gate` holds the disk's check back."""

    status: CheckStatus = CheckStatus.FAIL
    free_bytes: int = 2_000_000_000
    gate: Event = field(default_factory=Event)
    profiles: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def families(self) -> dict[str, tuple[str, Callable[[CheckContext], tuple[Check, ...]]]]:
        """What stands in for the table of families."""
        return {"host": ("Host", self._host), "python": ("Python", self._python)}

    def _host(self, context: CheckContext) -> tuple[Check, ...]:
        self.profiles.append(context.profile.title)
        return (
            Check("host.os", "Operating system", "Linux", lambda: Finding(CheckStatus.PASS, "Linux 6.1")),
            Check("host.disk", "Disk", "10 GB free", self._disk),
            Check("host.speed", "Speed", "fast", lambda: Finding(CheckStatus.PASS, "fast"), is_deep=True),
        )

    def _python(self, _: CheckContext) -> tuple[Check, ...]:
        skipped = Finding(CheckStatus.SKIP, "not in a container")
        return (Check("python.venv", "Virtual environment", "in use", lambda: skipped),)

    def _disk(self) -> Finding:
        self.gate.wait(20)
        facts = {"free_bytes": self.free_bytes}
        return Finding(self.status, FULL_DISK, None if self.status is CheckStatus.PASS else REMEDY, facts)
