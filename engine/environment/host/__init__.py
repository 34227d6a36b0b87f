"""Checks of the host: system, processor, memory, disks, limits, kernel settings, clock, ports."""

from __future__ import annotations

from engine.environment.check import Check
from engine.environment.context import CheckContext
from engine.environment.host.clock import clock_check
from engine.environment.host.disk import disk_checks
from engine.environment.host.home import home_check
from engine.environment.host.kernel import kernel_checks
from engine.environment.host.limits import limit_checks
from engine.environment.host.memory import memory_checks
from engine.environment.host.ports import ports_check
from engine.environment.host.processor import cpu_check
from engine.environment.host.system import os_check

__all__ = ["host_checks"]


def host_checks(context: CheckContext) -> tuple[Check, ...]:
    """The checks of the machine or container that this process runs in. Building them reads nothing."""
    return (
        os_check(),
        cpu_check(context),
        *memory_checks(context),
        home_check(context),
        *disk_checks(context),
        *limit_checks(context),
        *kernel_checks(context),
        clock_check(context),
        ports_check(context),
    )
