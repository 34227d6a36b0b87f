"""Checks of the container engine."""

from __future__ import annotations

from engine.deploy.docker import read_container_engine, read_reclaimable, read_running_containers
from engine.deploy.trial import BUDGET_S, run_trial
from engine.environment.check import Check, Shared
from engine.environment.containers.capacity import judge_capacity
from engine.environment.containers.engine import (
    RUNC_ESCAPES,
    in_its_words,
    judge_components,
    judge_engine,
    judge_warnings,
    with_info,
)
from engine.environment.containers.gpu_access import judge_gpu_access, read_gpu_access
from engine.environment.containers.storage import judge_data_root, judge_storage, read_data_root
from engine.environment.containers.trial import judge_trial
from engine.environment.context import CheckContext

__all__ = ["container_checks"]

# To ask the engine for its info first (three calls of 2 s at most), and to take the container away.
_MARGIN_S = 10.0


def container_checks(context: CheckContext) -> tuple[Check, ...]:
    """The checks of the container engine, whose info is read once for all; a machine may well have none."""
    wanted, host = context.profile.containers, context.profile.host
    engine = Shared(read_container_engine)
    return (
        Check(
            "containers.engine",
            "Container engine",
            "answers" if wanted.required else "answers, where one is installed",
            lambda: judge_engine(engine(), wanted),
        ),
        Check(
            "containers.storage",
            "Storage driver and cgroups",
            "a copy-on-write storage driver",
            with_info(engine, lambda _, info: judge_storage(info)),
        ),
        Check(
            "containers.runtime",
            "GPUs in containers",
            "an NVIDIA runtime or CDI devices" if wanted.gpu else "any: the profile asks for no GPU in containers",
            with_info(engine, lambda found, info: judge_gpu_access(read_gpu_access(found, info, context.root), wanted)),
        ),
        Check(
            "containers.containerd",
            "containerd and runc",
            f"found; runc without {RUNC_ESCAPES}, or mended by the distribution",
            with_info(engine, lambda found, _: judge_components(found)),
        ),
        Check(
            "containers.data_root",
            "Disk for container images",
            f"{host.engine_disk_free_gb.describe('GB')} free; inodes: {host.inodes_free.describe()}",
            lambda: in_its_words(
                engine(),
                judge_data_root(
                    read_data_root(engine(), context.root, read_reclaimable),
                    host.engine_disk_free_gb,
                    host.inodes_free,
                    wanted.required,
                ),
            ),
        ),
        Check(
            "containers.run",
            "A container runs",
            "`true` in a small image that is here, without network, ends with code 0",
            with_info(engine, lambda _found, _info: judge_trial(run_trial(), wanted)),
            timeout_s=BUDGET_S + _MARGIN_S,
        ),
        Check(
            "containers.capacity",
            "Limits of containers",
            "memory and CPU limits, with the planned container's, within the machine",
            with_info(engine, lambda _, info: judge_capacity(read_running_containers(), info, wanted)),
        ),
        Check(
            "containers.warnings",
            "Warnings of the engine",
            "none",
            with_info(engine, lambda _, info: judge_warnings(info)),
        ),
    )
