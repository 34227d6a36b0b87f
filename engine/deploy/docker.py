"""The one door to the container engine (Docker, or Podman behind Docker's API).

Above it there are frozen readings; None is "the engine does not tell". A call that fails is a reading with its reason,
never an exception. `connect` everywhere takes `timeout` (seconds) and `environment` as docker.from_env does.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound

from engine.deploy.disk_usage import Reclaimable, count_reclaimable

DEFAULT_ADDRESS = "unix:///var/run/docker.sock"
TIMEOUT_S = 2.0
TRIAL_LABEL = "autoglm-console.trial"

# What a call to the engine raises: the socket's and requests' errors are OSErrors, a bad address is a ValueError.
ENGINE_ERRORS = (OSError, ValueError, DockerException)

Connect = Callable[..., Any]
connect_docker: Connect = docker.from_env


@dataclass(frozen=True)
class EngineInfo:
    """What the engine says of itself and of its host.

    `runtimes` are the names that `--runtime` takes, `cdi_devices` the CDI devices that it has found, `cdi_folders`
    where it looks for their descriptions: empty where it does not.
    """

    storage_driver: str | None = None
    cgroup_driver: str | None = None
    cgroup_version: str | None = None
    data_root: str | None = None
    memory_bytes: int | None = None
    num_cpus: int | None = None
    runtimes: tuple[str, ...] = ()
    default_runtime: str | None = None
    cdi_devices: tuple[str, ...] = ()
    cdi_folders: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    is_live_restored: bool | None = None


@dataclass(frozen=True)
class ContainerEngine:
    """The engine that answers at `address`. `reason` says why none does, and is None when one does.

    `is_absent` is a socket that does not exist, `is_forbidden` one that this user may not open. `components` are the
    programs the engine works with and their versions, "" where it cannot tell. `info` is None where it is kept back.
    """

    address: str
    name: str | None = None
    version: str | None = None
    api_version: str | None = None
    reason: str | None = None
    is_forbidden: bool = False
    is_absent: bool = False
    components: tuple[tuple[str, str], ...] = ()
    info: EngineInfo | None = None

    @property
    def is_named(self) -> bool:
        """Did somebody name this address, so that an engine is meant to answer there."""
        return self.address != DEFAULT_ADDRESS

    @property
    def is_local(self) -> bool:
        """Is it reached by a socket of this machine, so that its paths may be here too."""
        return self.address.startswith("unix://")

    @property
    def is_podman(self) -> bool:
        """Is it Podman, behind Docker's API."""
        return "podman" in (self.name or self.address).lower()


@dataclass(frozen=True)
class RunningContainer:
    """A container with its limits; None is no limit. `cpu_shares` is a weight, which reserves nothing.

    `memory_reservation_bytes` is what the kernel leaves a container when memory is short, at most its limit.
    """

    name: str
    memory_limit_bytes: int | None = None
    cpu_limit: float | None = None
    cpu_shares: int | None = None
    memory_reservation_bytes: int | None = None


@dataclass(frozen=True)
class RunningContainers:
    """What runs; `num_unread` more run too, but the time was over before their limits were read.

    `reason` says why nothing could be read, and is None when it could.
    """

    containers: tuple[RunningContainer, ...] = ()
    num_unread: int = 0
    reason: str | None = None


def read_container_engine(address: str | None = None, connect: Connect = connect_docker) -> ContainerEngine:
    """Ask the engine at `address` ($DOCKER_HOST, else Docker's socket) for versions and info; none is no error."""
    address = address or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
    shown = _without_credentials(address)
    try:
        with open_engine(address, connect) as client:
            version = client.version()
            info = _read_info(client)
    except PermissionError:
        return ContainerEngine(shown, reason=f"This user may not open {shown}.", is_forbidden=True)
    except FileNotFoundError:
        return ContainerEngine(shown, reason=f"No container engine runs here: {shown} does not exist.", is_absent=True)
    except ENGINE_ERRORS as error:
        reason = _without_credentials(f"No container engine answers at {shown}: {error}.")
        return ContainerEngine(shown, reason=reason)
    return ContainerEngine(
        shown,
        _engine_name(version),
        version.get("Version"),
        version.get("ApiVersion"),
        components=_components(version),
        info=info,
    )


def read_reclaimable(address: str | None = None, connect: Connect = connect_docker) -> Reclaimable | None:
    """What pruning would free; None where the engine does not say so within 2 s, as on a slow disk it may not."""
    try:
        with open_engine(address, connect) as client:
            usage = client.df()
    except ENGINE_ERRORS:
        return None
    return count_reclaimable(usage)


def read_running_containers(
    address: str | None = None, connect: Connect = connect_docker, budget_s: float = TIMEOUT_S
) -> RunningContainers:
    """The containers that run now but for trials, sorted by name, as many as can be read in `budget_s`."""
    deadline_s = time.monotonic() + budget_s
    containers: list[RunningContainer] = []
    num_unread = 0
    try:
        with open_engine(address, connect) as client:
            for entry in client.api.containers():
                if TRIAL_LABEL in (entry.get("Labels") or {}):
                    continue
                if time.monotonic() >= deadline_s:
                    num_unread += 1
                elif (container := _read_container(client, entry["Id"])) is not None:
                    containers.append(container)
    except ENGINE_ERRORS as error:
        return RunningContainers(reason=explain(error))
    return RunningContainers(tuple(sorted(containers, key=lambda container: container.name)), num_unread)


@contextmanager
def open_engine(address: str | None, connect: Connect) -> Iterator[Any]:
    """A client of docker's SDK, closed at the end; each of its calls takes 2 s at most.

    Raises:
        OSError, ValueError, DockerException: `ENGINE_ERRORS`, PermissionError and FileNotFoundError of the socket.
    """
    address = address or os.environ.get("DOCKER_HOST") or DEFAULT_ADDRESS
    _knock(address)
    client = connect(timeout=TIMEOUT_S, environment={**os.environ, "DOCKER_HOST": address})
    try:
        yield client
    finally:
        client.close()


def _knock(address: str) -> None:
    """Raise the plain OSError where nobody listens at a Unix socket; docker's own error hides it."""
    if address.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as knock:
            knock.settimeout(TIMEOUT_S)
            knock.connect(address.removeprefix("unix://"))


def _without_credentials(text: str) -> str:
    return re.sub(r"//[^/\s]*@", "//", text)


def _engine_name(version: dict[str, Any]) -> str:
    """Podman calls its first component "Podman Engine", Docker just "Engine"."""
    name = next((str(part.get("Name")) for part in version.get("Components") or ()), "Engine")
    return "Docker Engine" if name == "Engine" else name


def _components(version: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    parts = (version.get("Components") or [])[1:]
    return tuple((str(part.get("Name") or "?"), str(part.get("Version") or "")) for part in parts)


def _read_info(client: Any) -> EngineInfo | None:
    """None where the engine refuses, as one behind a proxy that lets only some calls through does."""
    try:
        info = client.info()
    except APIError:
        return None
    return EngineInfo(
        storage_driver=info.get("Driver") or None,
        cgroup_driver=info.get("CgroupDriver") or None,
        cgroup_version=info.get("CgroupVersion") or None,
        data_root=info.get("DockerRootDir") or None,
        memory_bytes=info.get("MemTotal") or None,
        num_cpus=info.get("NCPU") or None,
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        default_runtime=info.get("DefaultRuntime") or None,
        cdi_devices=tuple(str(device.get("ID")) for device in info.get("DiscoveredDevices") or ()),
        cdi_folders=tuple(info.get("CDISpecDirs") or ()),
        warnings=tuple(info.get("Warnings") or ()),
        is_live_restored=info.get("LiveRestoreEnabled"),
    )


def _read_container(client: Any, container_id: str) -> RunningContainer | None:
    """None for one that has ended meanwhile."""
    try:
        found = client.api.inspect_container(container_id)
    except NotFound:
        return None
    limits = found["HostConfig"]
    return RunningContainer(
        name=str(found["Name"]).lstrip("/"),
        memory_limit_bytes=limits.get("Memory") or None,
        cpu_limit=_cpu_limit(limits),
        cpu_shares=limits.get("CpuShares") or None,
        memory_reservation_bytes=limits.get("MemoryReservation") or None,
    )


def _cpu_limit(limits: dict[str, Any]) -> float | None:
    """Cores by `--cpus`, else by quota and period (100 ms where none is set, as the kernel has it)."""
    if limits.get("NanoCpus"):
        return float(limits["NanoCpus"] / 1e9)
    if (limits.get("CpuQuota") or 0) > 0:
        return float(limits["CpuQuota"] / (limits.get("CpuPeriod") or 100_000))
    return None


def explain(error: Exception) -> str:
    """The engine's own explanation, without the address that was asked."""
    return _without_credentials(str(getattr(error, "explanation", None) or error))
