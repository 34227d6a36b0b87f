"""The check of ports: free to listen on, or who has them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from engine.environment.check import Check, CheckStatus, Finding
from engine.environment.context import CheckContext

_LOOPBACK = "127.0.0.1"
_CONSOLES = (["-m", "dashboard"], ["-m", "engine.api"])


class PortUse(StrEnum):
    """What a port is."""

    FREE = "free"
    TAKEN = "taken"
    FORBIDDEN = "needs more rights"


@dataclass(frozen=True)
class Owner:
    """The process that listens; `command` is its command line."""

    pid: int
    command: tuple[str, ...]

    @property
    def is_console(self) -> bool:
        """Another process of this program, such as the server that an operator checks from a shell."""
        pairs = [list(pair) for pair in zip(self.command, self.command[1:], strict=False)]
        return any(pair in _CONSOLES for pair in pairs)


@dataclass(frozen=True)
class PortState:
    """One port of 127.0.0.1; `owner` is None where it cannot be told, another user's process for one."""

    port: int
    use: PortUse
    owner: Owner | None = None


def ports_check(context: CheckContext) -> Check:
    """`host.ports`."""
    wanted = tuple(dict.fromkeys((context.port, *context.profile.host.free_ports)))
    own = context.port if context.is_serving else None
    expected = f"{', '.join(map(str, wanted))} free on {context.host}"

    def check() -> Finding:
        states = [read_port(port, context.host) for port in wanted if port != own]
        return judge_ports(states, context.port, own is not None)

    return Check("host.ports", "Ports", expected, check)


def read_port(port: int, host: str = _LOOPBACK) -> PortState:
    """Bind for a moment, as the server would, without listening; look up who has it if that fails."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EACCES:
                return PortState(port, PortUse.FORBIDDEN)
            return PortState(port, PortUse.TAKEN, find_owner(port))
    return PortState(port, PortUse.FREE)


def find_owner(port: int) -> Owner | None:
    """The process that listens on a port."""
    try:
        listening = (item for item in psutil.net_connections("tcp") if item.status == psutil.CONN_LISTEN)
        pid = next((item.pid for item in listening if item.laddr and item.laddr.port == port), None)
        return None if pid is None else Owner(pid, tuple(psutil.Process(pid).cmdline()))
    except (psutil.Error, OSError):
        return None


def judge_ports(states: Sequence[PortState], console_port: int, is_serving: bool = False) -> Finding:
    """Fail for every port that something else has. The console's own port may be the console's, here or elsewhere."""
    seen = [f"{console_port} used by this console"] if is_serving else []
    remedies = {}
    for state in states:
        owner = state.owner
        if state.port == console_port and owner is not None and owner.is_console:
            seen.append(f"{state.port} used by the console (pid {owner.pid})")
        else:
            seen.append(f"{state.port} {state.use}" + (f" by {_show(owner)}" if owner else ""))
            if state.use is not PortUse.FREE:
                remedies[state.port] = _remedy(state, state.port == console_port)
    status = CheckStatus.FAIL if remedies else CheckStatus.PASS
    facts = {"not_free": ", ".join(map(str, remedies))}
    return Finding(status, "; ".join(seen) or "no port is asked for", " ".join(remedies.values()) or None, facts)


def _remedy(state: PortState, is_console_port: bool) -> str:
    choose = "start with another --port" if is_console_port else f"take {state.port} out of host.free_ports"
    if state.use is PortUse.FORBIDDEN:
        return (
            f"Ports below 1024 are root's: {choose}, or `sysctl -w net.ipv4.ip_unprivileged_port_start={state.port}`."
        )
    if state.owner is None:
        return f"See who listens (`ss -ltnp 'sport = :{state.port}'` as root) and stop it, or {choose}."
    return f"Stop {_show(state.owner)} (`kill {state.owner.pid}`), or {choose}."


def _show(owner: Owner) -> str:
    """The program only: its arguments may hold secrets, and this text goes into tickets."""
    program = Path(owner.command[0]).name if owner.command else "unknown"
    return f"pid {owner.pid} ({program})"
