from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from engine.deploy.docker import read_container_engine
from engine.deploy.trial import BUDGET_S
from engine.environment.check import CheckStatus, run_checks
from engine.environment.containers import container_checks
from engine.environment.context import CheckContext
from engine.environment.profile import Bound, ContainersProfile, HostProfile, Profile
from engine.telemetry.nvml import Nvml
from tests.engine.deploy.engine_server import DOCKER_INFO, serve_engine
from tests.fakes import wait_until

IDS = [
    f"containers.{name}"
    for name in ("engine", "storage", "runtime", "containerd", "data_root", "run", "capacity", "warnings")
]


def context(home: Path, containers: ContainersProfile | None = None) -> CheckContext:
    host = HostProfile(engine_disk_free_gb=Bound(), inodes_free=Bound())
    profile = Profile(title="test", host=host, containers=containers or ContainersProfile())
    return CheckContext(profile, home, Nvml(), root=home)


def test_one_connection_tells_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {**DOCKER_INFO, "DockerRootDir": str(tmp_path)}
    answers: dict[str, object] = {"GET /images/json": [], "GET /system/df": {}, "GET /info": info}
    with serve_engine(tmp_path, answers) as server:
        monkeypatch.setenv("DOCKER_HOST", server.address)
        results = run_checks(container_checks(context(tmp_path, ContainersProfile(gpu=True))))
        asked = [key for key, _ in server.seen]
    assert [result.id for result in results] == IDS
    assert {result.id: result.status for result in results if result.status is not CheckStatus.PASS} == {
        "containers.run": CheckStatus.SKIP,
    }
    assert asked.count("GET /info") == 1


@pytest.mark.docker
@pytest.mark.skipif(shutil.which("podman") is None, reason="Podman is not installed")
def test_a_real_podman_is_read_like_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as folder:  # Podman wants a short path
        address = Path(folder, "podman.sock")
        command = ["podman", "--root", f"{folder}/images", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        podman = subprocess.Popen([*command, "system", "service", "--time", "60", f"unix://{address}"])
        try:
            wait_until(lambda: read_container_engine(f"unix://{address}").reason is None)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{address}")
            results = {result.id: result for result in run_checks(container_checks(context(tmp_path)))}
        finally:
            podman.terminate()
            podman.wait()
    assert results["containers.engine"].observed.startswith("Podman Engine ")
    assert results["containers.containerd"].status is CheckStatus.PASS
    assert "vfs" in results["containers.storage"].observed
    assert results["containers.run"].status is CheckStatus.SKIP  # it has no images


def test_the_trial_may_take_longer_than_the_rest(tmp_path: Path) -> None:
    limits = {check.id: check.timeout_s for check in container_checks(context(tmp_path))}
    assert limits["containers.run"] > BUDGET_S > limits["containers.engine"]


def test_without_an_engine_all_but_its_disk_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr("engine.deploy.docker.DEFAULT_ADDRESS", f"unix://{tmp_path}/none.sock")
    results = run_checks(container_checks(context(tmp_path)))
    skipped = [result.id for result in results if result.status is CheckStatus.SKIP]
    assert skipped == [name for name in IDS if name != "containers.data_root"]
    assert "does not exist" in results[0].observed


def test_an_engine_that_is_named_and_does_not_answer_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    engine = next(r for r in run_checks(container_checks(context(tmp_path))) if r.id == "containers.engine")
    assert engine.status is CheckStatus.WARN
    assert engine.remedy


def test_a_required_engine_fails_once_and_the_rest_skips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    results = run_checks(container_checks(context(tmp_path, ContainersProfile(required=True, gpu=True))))
    assert [result.id for result in results if result.status is CheckStatus.FAIL] == ["containers.engine"]


@pytest.mark.parametrize(("is_required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
@pytest.mark.parametrize("has_engine", [True, False])
def test_one_check_judges_the_disk_that_images_land_on(
    has_engine: bool, is_required: bool, status: CheckStatus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data root that an engine tells counts, however little is left elsewhere; /var where no engine answers."""
    short = HostProfile(engine_disk_free_gb=Bound(require=10**9), inodes_free=Bound())
    with serve_engine(tmp_path, {"GET /info": {**DOCKER_INFO, "DockerRootDir": str(tmp_path)}}) as server:
        monkeypatch.setenv("DOCKER_HOST", server.address if has_engine else f"unix://{tmp_path}/none.sock")
        profile = Profile(title="test", host=short, containers=ContainersProfile(required=is_required))
        checks = container_checks(CheckContext(profile, tmp_path, Nvml(), root=tmp_path))
        finding = next(check for check in checks if check.id == "containers.data_root").run()
    assert finding.status is status
    assert finding.facts["folder"] == str(tmp_path if has_engine else tmp_path / "var")
    assert "data-root" in (finding.remedy or "")


@pytest.mark.docker
def test_the_real_engine_in_a_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    results = run_checks(container_checks(context(tmp_path)))
    assert not [result for result in results if result.status in (CheckStatus.ERROR, CheckStatus.FAIL)]
    assert results[0].status is CheckStatus.PASS
    assert max(result.taken_s for result in results) < 3
