from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus
from engine.environment.context import CheckContext
from engine.environment.host.ports import Owner, PortState, PortUse, find_owner, judge_ports, ports_check, read_port
from engine.environment.profile import Profile
from engine.telemetry.nvml import Nvml
from tests.engine.environment.host.tree import host

OTHER = Owner(4242, ("/usr/sbin/nginx", "-g", "secret=hunter2;"))
CONSOLE = Owner(4243, ("/opt/venv/bin/python", "-m", "dashboard", "--port", "8501"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("states", "status", "remedy"),
    [
        ([], CheckStatus.PASS, ""),
        ([PortState(8501, PortUse.FREE)], CheckStatus.PASS, ""),
        ([PortState(8501, PortUse.TAKEN, CONSOLE)], CheckStatus.PASS, ""),
        ([PortState(9000, PortUse.TAKEN, CONSOLE)], CheckStatus.FAIL, "take 9000 out of host.free_ports"),
        (
            [PortState(8501, PortUse.TAKEN, OTHER)],
            CheckStatus.FAIL,
            "Stop pid 4242 (nginx) (`kill 4242`), or start with another --port.",
        ),
        ([PortState(8501, PortUse.TAKEN)], CheckStatus.FAIL, "`ss -ltnp 'sport = :8501'`"),
        ([PortState(80, PortUse.FORBIDDEN)], CheckStatus.FAIL, "sysctl -w net.ipv4.ip_unprivileged_port_start=80"),
    ],
)
def test_ports(states: list[PortState], status: CheckStatus, remedy: str) -> None:
    finding = judge_ports(states, 8501)
    assert finding.status is status
    assert remedy in (finding.remedy or "")
    assert (finding.remedy is None) is (status is CheckStatus.PASS)


def test_observed_names_who_has_a_port() -> None:
    states = [PortState(8501, PortUse.TAKEN, CONSOLE), PortState(80, PortUse.TAKEN, OTHER), PortState(81, PortUse.FREE)]
    finding = judge_ports(states, 8501)
    assert finding.observed == ("8501 used by the console (pid 4243); 80 taken by pid 4242 (nginx); 81 free")


def test_a_free_port_is_free(taken_port: int) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
    assert read_port(port) == PortState(port, PortUse.FREE)


def test_a_taken_port_names_this_process(taken_port: int) -> None:
    state = read_port(taken_port)
    assert state.use is PortUse.TAKEN
    assert state.owner is not None
    assert state.owner.pid == os.getpid()


def test_another_process_that_listens_everywhere_is_found() -> None:
    code = "import socket,sys; s=socket.create_server(('', 0)); print(s.getsockname()[1], flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            state = read_port(int(child.stdout.readline()))
            assert (state.use, state.owner and state.owner.pid) == (PortUse.TAKEN, child.pid)
        finally:
            child.communicate("", timeout=10)


def test_a_port_that_needs_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert read_port(80) == PortState(80, PortUse.FORBIDDEN)


def test_nobody_has_a_port_that_is_free() -> None:
    assert find_owner(1) is None


@pytest.mark.parametrize(("is_serving", "status"), [(True, CheckStatus.PASS), (False, CheckStatus.FAIL)])
def test_check_knows_whether_the_port_is_its_own(
    taken_port: int, tmp_path: Path, is_serving: bool, status: CheckStatus
) -> None:
    profile = Profile(title="test")
    context = CheckContext(profile, tmp_path, Nvml(), port=taken_port, is_serving=is_serving)
    finding = ports_check(context).run()
    assert finding.status is status
    assert ("used by this console" in finding.observed) is is_serving


def test_check_looks_at_the_profiles_ports_too(taken_port: int, tmp_path: Path) -> None:
    profile = Profile(title="test", host=host(free_ports=(taken_port,)))
    context = CheckContext(profile, tmp_path, Nvml(), is_serving=True)
    finding = ports_check(context).run()
    assert finding.status is CheckStatus.FAIL
    assert finding.facts == {"not_free": str(taken_port)}
