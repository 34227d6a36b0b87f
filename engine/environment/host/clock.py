"""The check of the clock: does anything keep it right, and by how much may it be wrong."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from engine.environment.check import Check, CheckStatus, Finding
from engine.environment.context import CheckContext
from engine.environment.host.procfs import read_text

# From <linux/timex.h>.
_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000

# Created by systemd-timesyncd at its first synchronisation; written by chronyd while it runs.
_TIMESYNCD = "run/systemd/timesync/synchronized"
_CHRONYD = ("run/chrony/chronyd.pid", "run/chronyd.pid")


@dataclass(frozen=True)
class KernelClock:
    """What the kernel was told by the program that keeps its clock. `offset_s` is what is still to be slewed away,
    `estimated_error_s` that program's estimate, `max_error_s` the bound, which grows until the next correction."""

    is_synchronised: bool
    offset_s: float
    estimated_error_s: float
    max_error_s: float


@dataclass(frozen=True)
class ClockState:
    """`kernel` is None where it may not be asked; `keeper` is the time service that was found at work. `is_guest` says
    that this is a virtual machine, whose host may keep the clock without a trace in here."""

    kernel: KernelClock | None
    keeper: str | None
    is_guest: bool = False


def clock_check(context: CheckContext) -> Check:
    """`host.clock`."""
    skew_max_s, root = context.profile.host.clock_skew_max_s, context.root
    expected = f"kept by a time service, at most {skew_max_s:g} s off"
    return Check("host.clock", "Clock", expected, lambda: judge_clock(read_clock(root), skew_max_s))


def read_clock(root: Path = Path("/")) -> ClockState:
    """The kernel's own word, and the time services' traces under /run. No network is used."""
    keeper = None
    if (root / _TIMESYNCD).exists():
        keeper = "systemd-timesyncd"
    elif any((root / name).exists() for name in _CHRONYD):
        keeper = "chronyd"
    return ClockState(read_kernel_clock(), keeper, _is_guest(root))


def _is_guest(root: Path) -> bool:
    return "hypervisor" in (read_text(root / "proc/cpuinfo") or "").split()


def judge_clock(state: ClockState, skew_max_s: float) -> Finding:
    """Warn when the skew is known to be too large, or when nothing keeps the clock.

    The kernel's bound on the error is told and not judged: between two corrections, up to 34 minutes apart, it grows
    past a second on a machine that is well.
    """
    kernel, keeper = state.kernel, state.keeper
    facts = {"is_synchronised": kernel.is_synchronised if kernel else None, "keeper": keeper}
    if kernel is not None and kernel.is_synchronised:
        skew_s = max(abs(kernel.offset_s), kernel.estimated_error_s)
        observed = f"synchronised, about {skew_s:.3f} s off, at most {kernel.max_error_s:.1f} s"
        if skew_s <= skew_max_s:
            return Finding(CheckStatus.PASS, observed, facts=facts)
        remedy = "Set the clock at once: `chronyc makestep`, or `systemctl restart systemd-timesyncd`."
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if keeper == "systemd-timesyncd" and kernel is not None:
        remedy = "See `timedatectl timesync-status` for the server it asks, then `systemctl restart systemd-timesyncd`."
        observed = "systemd-timesyncd set it once, and the kernel says that it is no longer kept"
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if keeper == "systemd-timesyncd":
        return Finding(CheckStatus.PASS, "systemd-timesyncd has synchronised it since the start", facts=facts)
    if keeper is not None:
        reason = f"{keeper} runs, but without `rtcsync` it does not tell the kernel; `chronyc tracking` shows the skew"
        return Finding(CheckStatus.SKIP, f"the skew cannot be told: {reason}", facts=facts)
    if kernel is None:
        return Finding(
            CheckStatus.SKIP, "cannot be told: the kernel may not be asked, no time service is seen", facts=facts
        )
    if state.is_guest:
        reason = "no time service is seen in this virtual machine, whose host may keep its clock"
        return Finding(CheckStatus.SKIP, f"the skew cannot be told: {reason}", facts=facts)
    remedy = (
        "Start a time service: `timedatectl set-ntp true`, or install chrony; without a network compare `date -u` with "
        "another clock by hand."
    )
    return Finding(
        CheckStatus.WARN, "nothing keeps it as far as the kernel knows; the skew cannot be told", remedy, facts
    )


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2); times are microseconds, `offset` nanoseconds if the status says so."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        ("rest", ctypes.c_byte * 256),
    )


def read_kernel_clock() -> KernelClock | None:
    """Ask adjtimex(2) without changing anything; None where it does not exist or is refused."""
    timex = _Timex()
    try:
        answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError, TypeError):
        return None
    if answer < 0:
        return None
    unit_s = 1e-9 if timex.status & _STA_NANO else 1e-6
    return KernelClock(
        is_synchronised=not timex.status & _STA_UNSYNC,
        offset_s=timex.offset * unit_s,
        estimated_error_s=timex.esterror * 1e-6,
        max_error_s=timex.maxerror * 1e-6,
    )
