from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import DockerException
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.docker import (
    DEFAULT_ADDRESS,
    TRIAL_LABEL,
    RunningContainer,
    RunningContainers,
    _cpu_limit,
    read_container_engine,
    read_reclaimable,
    read_running_containers,
)
from tests.engine.deploy.engine_server import HANG, PODMAN_VERSION, serve_engine


def test_an_engine_behind_a_real_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_engine(tmp_path, {}) as server:
        monkeypatch.setenv("DOCKER_HOST", server.address)
        engine = read_container_engine()
    assert (engine.address, engine.name, engine.version) == (server.address, "Docker Engine", "28.5.1")
    assert (engine.api_version, engine.reason, engine.is_local) == ("1.51", None, True)
    assert engine.components == (("containerd", "1.7.28"), ("runc", "1.3.3"))
    info = engine.info
    assert info is not None
    assert (info.storage_driver, info.cgroup_driver, info.cgroup_version) == ("overlay2", "systemd", "2")
    assert (info.memory_bytes, info.num_cpus, info.data_root) == (64 * 10**9, 16, "/var/lib/docker")
    assert (info.runtimes, info.default_runtime) == (("nvidia", "runc"), "runc")
    assert info.cdi_devices == ("nvidia.com/gpu=0",)
    assert (info.warnings, info.is_live_restored) == ((), False)


def test_podman_is_called_podman_and_tells_less(tmp_path: Path) -> None:
    answers = {"GET /version": PODMAN_VERSION, "GET /info": {"Driver": "overlay", "NCPU": 0}}
    with serve_engine(tmp_path, answers) as server:
        engine = read_container_engine(server.address)
    assert engine.name == "Podman Engine"
    assert engine.components == (("OCI Runtime (crun)", "1.24"),)
    assert engine.info is not None
    assert (engine.info.num_cpus, engine.info.runtimes, engine.info.cdi_folders) == (None, (), ())


def test_an_engine_that_keeps_its_info_back_still_has_a_version(tmp_path: Path) -> None:
    with serve_engine(tmp_path, {"GET /info": (403, {"message": "forbidden"})}) as server:
        engine = read_container_engine(server.address)
    assert (engine.version, engine.info, engine.reason) == ("28.5.1", None, None)


def test_no_socket_is_a_reason(tmp_path: Path) -> None:
    engine = read_container_engine(f"unix://{tmp_path}/none.sock")
    assert engine.reason == f"No container engine runs here: unix://{tmp_path}/none.sock does not exist."
    assert engine.is_absent
    assert not engine.is_forbidden


def test_a_socket_nobody_listens_at_is_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    engine = read_container_engine(f"unix://{path}")
    assert "Connection refused" in (engine.reason or "")
    assert not engine.is_absent


def test_a_socket_that_may_not_be_opened_is_forbidden() -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    engine = read_container_engine("tcp://engine:2375", refuse)
    assert engine.is_forbidden
    assert engine.reason == "This user may not open tcp://engine:2375."
    assert not engine.is_local


def test_an_engine_that_fails_is_a_reason(tmp_path: Path) -> None:
    with serve_engine(tmp_path, {"GET /version": (500, {"message": "out of order"})}) as server:
        engine = read_container_engine(server.address)
    assert "out of order" in (engine.reason or "")
    assert engine.version is None


def test_an_engine_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.deploy.docker.TIMEOUT_S", 0.3)
    with serve_engine(tmp_path, {"GET /version": HANG, "GET /system/df": HANG}) as server:
        started_s = time.monotonic()
        assert "timed out" in (read_container_engine(server.address).reason or "").lower()
        assert read_reclaimable(server.address) is None
        assert time.monotonic() - started_s < 15


def test_no_password_of_docker_host_is_shown() -> None:
    def fail(**options: Any) -> None:
        raise DockerException(f"cannot reach {options['environment']['DOCKER_HOST']}")

    engine = read_container_engine("ssh://user:hunter2@engine:22", fail)
    assert engine.reason == "No container engine answers at ssh://engine:22: cannot reach ssh://engine:22."
    assert "hunter2" not in repr(engine)


@pytest.mark.parametrize("address", ["nonsense", "tcp://[::1", "unix:///etc/passwd", "ssh://user:hunter2@engine"])
def test_an_address_that_is_none_is_a_reason(address: str) -> None:
    engine = read_container_engine(address)
    assert (engine.reason or "").startswith("No container engine answers at ")
    assert "hunter2" not in repr(engine)


def test_limits_of_what_runs(tmp_path: Path) -> None:
    entries = [{"Id": "b"}, {"Id": "a"}, {"Id": "gone"}, {"Id": "ours", "Labels": {TRIAL_LABEL: "true"}}]
    unlimited = {"Memory": 0, "MemoryReservation": 10**9, "CpuQuota": -1}
    limits = {"Memory": 2 * 10**9, "NanoCpus": 1_500_000_000, "CpuShares": 512}
    answers = {
        "GET /containers/json": entries,
        "GET /containers/a/json": {"Name": "/a", "HostConfig": unlimited},
        "GET /containers/b/json": {"Name": "/b", "HostConfig": limits},
    }
    with serve_engine(tmp_path, answers) as server:
        running = read_running_containers(server.address)
        late = read_running_containers(server.address, budget_s=0)
    reserving = RunningContainer("a", memory_reservation_bytes=10**9)
    assert running == RunningContainers((reserving, RunningContainer("b", 2 * 10**9, 1.5, 512)))
    assert late == RunningContainers((), num_unread=3)
    assert "No such file" in (read_running_containers(f"unix://{tmp_path}/none.sock").reason or "")


@given(quota=st.integers(1, 10**7), period=st.integers(1_000, 10**6))
def test_a_quota_is_cores_and_nano_cpus_win(quota: int, period: int) -> None:
    assert _cpu_limit({"CpuQuota": quota, "CpuPeriod": period}) == quota / period
    assert _cpu_limit({"CpuQuota": quota}) == quota / 100_000
    assert _cpu_limit({"CpuQuota": quota, "NanoCpus": 2_000_000_000}) == 2.0


@pytest.mark.docker
def test_the_real_engine_tells() -> None:
    engine = read_container_engine(DEFAULT_ADDRESS)
    assert engine.reason is None
    assert engine.info is not None
    assert engine.info.num_cpus == os.cpu_count()
    assert engine.info.storage_driver
    assert engine.info.runtimes
    reclaimable = read_reclaimable(DEFAULT_ADDRESS)
    assert reclaimable is not None
    assert reclaimable.images_bytes >= 0


@pytest.mark.docker
def test_the_limits_of_a_real_container() -> None:
    client = docker.from_env()
    tags = [tag for image in client.images.list() for tag in image.tags if "pause" in tag]
    if not tags:
        pytest.skip("no pause image: run base-image.sh")
    name = f"console-test-{os.getpid()}"
    container = client.containers.run(
        tags[0], name=name, detach=True, network_mode="none", mem_limit="32m", nano_cpus=500_000_000, cpu_shares=256
    )
    try:
        running = read_running_containers(DEFAULT_ADDRESS)
    finally:
        container.remove(force=True)
        client.close()
    assert RunningContainer(name, 32 * 2**20, 0.5, 256) in running.containers
