"""What the checks of one run look at, handed to every family."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from engine.clock import Clock, SystemClock
from engine.environment.profile import Profile
from engine.telemetry.nvml import Nvml


@dataclass(frozen=True)
class CheckContext:
    """One run's subject.

    `home` is the console's folder, which may not exist yet. `host` and `port` are where the console listens or will;
    `is_serving` says that this very process listens there. `root` is the folder that holds `proc`, `sys` and `dev`.
    `cancelled` is set to end the run.
    """

    profile: Profile
    home: Path
    nvml: Nvml
    port: int = 8501
    is_serving: bool = False
    root: Path = Path("/")
    host: str = "127.0.0.1"
    clock: Clock = field(default_factory=SystemClock)
    cancelled: Event = field(default_factory=Event)
