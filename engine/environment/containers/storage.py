"""Where and how the engine stores images and containers, and whether there is room."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.deploy.disk_usage import Reclaimable
from engine.deploy.docker import ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus, Finding, format_gb, severity
from engine.environment.host.disk import Space, judge_space, read_space
from engine.environment.profile import Bound

SLOW_DRIVERS = {
    "vfs": "it copies the whole image for every container",
    "devicemapper": "Docker 25 and later do not have it any more",
    "aufs": "Docker 24 and later do not have it any more",
}


# Where Docker and containerd keep images and containers unless told otherwise; /var holds both.
ENGINE_ROOTS = ("var/lib/docker", "var/lib/containerd")
_WORTH_PRUNING_BYTES = 50 * 10**6
_OR_ELSE = 'Otherwise move "data-root" in /etc/docker/daemon.json to a larger disk.'


@dataclass(frozen=True)
class DataRoot:
    """Where images land, and the room there. `space` is None where it cannot be read, `reclaimable` where the engine
    did not tell; without an engine to ask `is_told` is false and the folder is the engines' own default."""

    folder: Path
    space: Space | None
    reclaimable: Reclaimable | None = None
    is_told: bool = True


def judge_storage(info: EngineInfo) -> Finding:
    """Warn about a storage driver that is slow or gone; the cgroup version is told."""
    driver, version = info.storage_driver or "unknown", info.cgroup_version
    cgroups = f"cgroup version {version or 'unknown'}, driver {info.cgroup_driver or 'unknown'}"
    observed = f"storage driver {driver}; {cgroups}"
    if version == "1":
        observed += " (newer Kubernetes and systemd want version 2)"
    facts = {"storage_driver": info.storage_driver, "cgroup_driver": info.cgroup_driver, "cgroup_version": version}
    if driver in SLOW_DRIVERS:
        remedy = (
            f'Set "storage-driver": "overlay2" in /etc/docker/daemon.json, then `sudo systemctl restart docker` and '
            f"pull or build the images again: of {driver}, {SLOW_DRIVERS[driver]}."
        )
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def read_data_root(
    engine: ContainerEngine, root: Path, read_reclaimable: Callable[[], Reclaimable | None]
) -> DataRoot | str:
    """Where the engine says that images land, else where engines put them by default under `root`; or why it cannot be
    seen from here."""
    if not engine.is_local:
        return f"the engine at {engine.address} is on another machine"
    told = engine.info.data_root if engine.info is not None else None
    if told is None:
        folder = find_engine_root(root)
        return DataRoot(folder, read_space(folder), is_told=False)
    if _is_absent(told):
        return f"the engine's data root {told} is not on this file system: this may be a container"
    return DataRoot(Path(told), read_space(Path(told)), read_reclaimable())


def find_engine_root(root: Path) -> Path:
    """The first of the engines' own folders that exists, else /var."""
    return next((root / name for name in ENGINE_ROOTS if os.path.isdir(root / name)), root / "var")


def judge_data_root(found: DataRoot | str, free_gb: Bound, inodes_free: Bound, is_required: bool) -> Finding:
    """Enough space and inodes for images; a lack fails only where containers are required."""
    if isinstance(found, str):
        return Finding(CheckStatus.SKIP, found)
    if not is_required:
        free_gb, inodes_free = _advise(free_gb), _advise(inodes_free)
    if found.space is None:
        remedy = f"Let this user look at {found.folder}, or run the checks as root."
        return Finding(severity(is_required), f"{found.folder} cannot be read", remedy)
    to_free = _describe_pruning(found.reclaimable)
    finding = judge_space(found.space, found.folder, free_gb, inodes_free, _OR_ELSE, to_free)
    return dataclasses.replace(finding, observed=finding.observed + _describe(found))


def _advise(bound: Bound) -> Bound:
    return Bound(recommend=bound.recommend or bound.require)


def _is_absent(path: str) -> bool:
    """Not of a folder that this user may not look at: with remapped user ids that is the engine's own."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _describe(found: DataRoot) -> str:
    if not found.is_told:
        return ", where images land by default; no engine tells"
    if found.reclaimable is None:
        return "; the engine did not tell in time what pruning would free"
    return f"; {format_gb(found.reclaimable.total_bytes)} could be pruned"


def _describe_pruning(reclaimable: Reclaimable | None) -> str | None:
    """The commands that free most, the best first; None where pruning frees nothing."""
    if reclaimable is None:
        return "`docker system df` shows what pruning would free"
    commands = (
        (reclaimable.images_bytes, "docker image prune --all", "images no container uses"),
        (reclaimable.build_cache_bytes, "docker builder prune --all", "build cache"),
        (reclaimable.containers_bytes, "docker container prune", "stopped containers"),
    )
    useful = [part for part in sorted(commands, reverse=True) if part[0] >= _WORTH_PRUNING_BYTES]
    return "; ".join(f"`{command}` frees up to {format_gb(size)}: {what}" for size, command, what in useful) or None
