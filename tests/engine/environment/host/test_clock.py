from __future__ import annotations

import ctypes
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.clock import ClockState, KernelClock, judge_clock, read_clock, read_kernel_clock
from tests.engine.environment.host.tree import run_check, write_tree

KEPT = KernelClock(is_synchronised=True, offset_s=-0.002, estimated_error_s=0.001, max_error_s=1.3)
UNKEPT = KernelClock(is_synchronised=False, offset_s=0.0, estimated_error_s=16.0, max_error_s=16.0)


@pytest.mark.parametrize(
    ("state", "status", "says"),
    [
        (ClockState(KEPT, None), CheckStatus.PASS, "synchronised, about 0.002 s off, at most 1.3 s"),
        (ClockState(replace(KEPT, offset_s=-1.5), "chronyd"), CheckStatus.WARN, "about 1.500 s off"),
        (ClockState(replace(KEPT, estimated_error_s=2.0), None), CheckStatus.WARN, "about 2.000 s off"),
        (ClockState(UNKEPT, "systemd-timesyncd"), CheckStatus.WARN, "it is no longer kept"),
        (ClockState(None, "systemd-timesyncd"), CheckStatus.PASS, "has synchronised it since the start"),
        (ClockState(UNKEPT, "chronyd"), CheckStatus.SKIP, "`chronyc tracking` shows the skew"),
        (ClockState(None, None), CheckStatus.SKIP, "cannot be told"),
        (ClockState(UNKEPT, None), CheckStatus.WARN, "nothing keeps it as far as the kernel knows"),
        (ClockState(UNKEPT, None, is_guest=True), CheckStatus.SKIP, "whose host may keep its clock"),
        (ClockState(UNKEPT, "systemd-timesyncd", is_guest=True), CheckStatus.WARN, "it is no longer kept"),
    ],
)
def test_clock(state: ClockState, status: CheckStatus, says: str) -> None:
    finding = judge_clock(state, skew_max_s=1.0)
    assert finding.status is status
    assert says in finding.observed


def test_remedies_name_the_command() -> None:
    assert "`chronyc makestep`" in (judge_clock(ClockState(replace(KEPT, offset_s=9), None), 1.0).remedy or "")
    assert "`timedatectl set-ntp true`" in (judge_clock(ClockState(UNKEPT, None), 1.0).remedy or "")


@pytest.mark.parametrize(
    ("file", "keeper"),
    [
        ("run/systemd/timesync/synchronized", "systemd-timesyncd"),
        ("run/chrony/chronyd.pid", "chronyd"),
        ("run/other", None),
    ],
)
def test_time_services_are_seen(tmp_path: Path, file: str, keeper: str | None) -> None:
    assert read_clock(write_tree(tmp_path, {file: ""})).keeper == keeper


def test_a_virtual_machine_is_told_by_its_processor(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    assert not read_clock(tmp_path).is_guest
    (tmp_path / "proc/cpuinfo").write_text("flags\t\t: fpu avx2 hypervisor lahf_lm\n", encoding="ascii")
    assert read_clock(tmp_path).is_guest


def test_the_check_uses_the_profiles_skew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.environment.host.clock.read_kernel_clock", lambda: replace(KEPT, offset_s=0.5))
    assert run_check("host.clock", tmp_path, {}).status is CheckStatus.PASS
    assert run_check("host.clock", tmp_path, {}, clock_skew_max_s=0.1).status is CheckStatus.WARN


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_the_kernel_answers_here_or_refuses() -> None:
    clock = read_kernel_clock()
    assert clock is None or (0 <= clock.max_error_s <= 17 and abs(clock.offset_s) < 1)


def test_a_system_without_adjtimex_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    assert read_kernel_clock() is None
