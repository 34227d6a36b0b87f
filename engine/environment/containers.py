"""The one door to the container engine (Docker, or Podman behind Docker's API), and the check of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException

from engine.environment.check import Check, CheckStatus, Finding

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
_TIMEOUT_S = 5


@dataclass(frozen=True)
class ContainerEngine:
    """The engine that answers at `address`. `reason` says why none does, and is None when one does."""

    address: str
    name: str | None = None
    version: str | None = None
    api_version: str | None = None
    reason: str | None = None
    is_forbidden: bool = False


def container_checks() -> tuple[Check, ...]:
    """The check of the container engine; a machine may well have none."""
    return (
        Check(
            "containers.engine",
            "Container engine",
            "answers, where one is installed",
            lambda: judge_engine(read_container_engine()),
        ),
    )


def judge_engine(engine: ContainerEngine) -> Finding:
    """Skip where there is no engine; warn where there is one that this user may not use."""
    if engine.reason is None:
        observed = f"{engine.name} {engine.version}, API {engine.api_version}, at {engine.address}"
        return Finding(CheckStatus.PASS, observed)
    if engine.is_forbidden:
        remedy = "Add this user to the engine's group (`sudo usermod -aG docker $USER`) and sign in again."
        return Finding(CheckStatus.WARN, engine.reason, remedy)
    return Finding(CheckStatus.SKIP, engine.reason)


def read_container_engine(address: str | None = None, connect: Callable[..., Any] = docker.from_env) -> ContainerEngine:
    """Ask for the version of the engine at `address` ($DOCKER_HOST, else Docker's socket); none is no error.

    `connect` takes `timeout` (seconds) and `environment` as docker.from_env does.
    """
    address = address or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
    try:
        _knock(address)
        client = connect(timeout=_TIMEOUT_S, environment={**os.environ, "DOCKER_HOST": address})
        try:
            version = client.version()
        finally:
            client.close()
    except PermissionError:
        return ContainerEngine(address, reason=f"This user may not open {address}.", is_forbidden=True)
    except FileNotFoundError:
        return ContainerEngine(address, reason=f"No container engine runs here: {address} does not exist.")
    except (OSError, DockerException) as error:
        return ContainerEngine(address, reason=f"No container engine answers at {address}: {error}.")
    return ContainerEngine(address, _engine_name(version), version.get("Version"), version.get("ApiVersion"))


def _engine_name(version: dict[str, Any]) -> str:
    """Podman calls its first component "Podman Engine", Docker just "Engine"."""
    name = next((str(part.get("Name")) for part in version.get("Components") or ()), "Engine")
    return "Docker Engine" if name == "Engine" else name


def _knock(address: str) -> None:
    """Raise the plain OSError where nobody listens at a Unix socket; docker's own error hides it."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(_TIMEOUT_S)
            knock.connect(address.removeprefix("unix://"))
