from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from engine.deploy import trial as trial_module
from engine.deploy.docker import DEFAULT_ADDRESS, TRIAL_LABEL
from engine.deploy.trial import TrialOutcome, run_trial
from tests.engine.deploy.engine_server import HANG, Slow, serve_engine

IMAGES = [
    {"RepoTags": ["big:1"], "Size": 3 * 10**9},
    {"RepoTags": ["small:1"], "Size": 5_000_000},
    {"RepoTags": None, "Size": 1_000},
    {"RepoTags": ["registry.k8s.io/pause:3"], "Size": 500},
    {"RepoTags": ["<none>:<none>"], "Size": 1_500},
    {"RepoTags": ["tiny:1"], "Size": 2_000},
]
NOT_FOUND = {"message": 'OCI runtime create failed: exec: "true": executable file not found in $PATH: unknown'}
ANSWERS: dict[str, Any] = {
    "GET /images/json": IMAGES,
    "POST /containers/create": (201, {"Id": "c1"}),
    "POST /containers/c1/start": (204, None),
    "POST /containers/c1/wait": {"StatusCode": 0},
    "DELETE /containers/c1": (204, None),
}


def run_against(folder: Path, **changes: Any) -> tuple[Any, list[tuple[str, Any]]]:
    answers = {**ANSWERS, **{key.replace("__", " /").replace("_", "/"): value for key, value in changes.items()}}
    with serve_engine(folder, answers) as server:
        return run_trial(server.address), server.seen


def test_the_container_is_confined_and_taken_away(tmp_path: Path) -> None:
    trial, seen = run_against(tmp_path)
    assert (trial.outcome, trial.image) == (TrialOutcome.RAN, "tiny:1")
    body = next(body for key, body in seen if key == "POST /containers/create")
    limits = body["HostConfig"]
    assert (body["Image"], body["Entrypoint"], body["Labels"]) == ("tiny:1", ["true"], {TRIAL_LABEL: "true"})
    assert (limits["NetworkMode"], limits["Memory"], limits["ReadonlyRootfs"]) == ("none", 64 * 2**20, True)
    assert limits["CapDrop"] == ["ALL"]
    assert seen[-1][0] == "DELETE /containers/c1"
    assert not any("/images/create" in key for key, _ in seen)


def test_no_image_is_no_trial(tmp_path: Path) -> None:
    trial, seen = run_against(tmp_path, GET__images_json=[IMAGES[0], {"RepoTags": None, "Size": 1_000}])
    assert trial.outcome is TrialOutcome.NO_IMAGE
    assert not any(key.startswith("POST") for key, _ in seen)


def test_an_image_without_the_command_gives_way_to_the_next(tmp_path: Path) -> None:
    trial, seen = run_against(tmp_path, POST__containers_c1_start=(400, NOT_FOUND))
    assert (trial.outcome, trial.image) == (TrialOutcome.NO_COMMAND, "registry.k8s.io/pause:3")
    assert [key for key, _ in seen].count("DELETE /containers/c1") == 3


def test_a_runtime_that_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    trial, seen = run_against(tmp_path, POST__containers_c1_start=(500, {"message": "cgroup is read-only"}))
    assert (trial.outcome, trial.detail) == (TrialOutcome.FAILED, "cgroup is read-only")
    assert seen[-1][0] == "DELETE /containers/c1"


def test_another_exit_code_is_a_failure(tmp_path: Path) -> None:
    trial, _ = run_against(tmp_path, POST__containers_c1_wait={"StatusCode": 137})
    assert (trial.outcome, trial.detail) == (TrialOutcome.FAILED, "exit code 137")


def test_a_container_that_never_ends_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "BUDGET_S", 0.3)
    started_s = time.monotonic()
    trial, seen = run_against(tmp_path, POST__containers_c1_wait=HANG)
    assert time.monotonic() - started_s < 15
    assert trial.outcome is TrialOutcome.FAILED
    assert "timed out" in trial.detail.lower()
    assert seen[-1][0] == "DELETE /containers/c1"


def test_a_slow_start_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than any other call may take, which is 2 s."""
    monkeypatch.setattr("engine.deploy.docker.TIMEOUT_S", 0.3)
    trial, _ = run_against(tmp_path, POST__containers_c1_start=Slow(0.8, (204, None)))
    assert trial.outcome is TrialOutcome.RAN, trial.detail


def test_the_images_share_one_time_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_module, "BUDGET_S", 1.0)
    started_s = time.monotonic()
    trial, seen = run_against(tmp_path, POST__containers_c1_start=Slow(0.6, (400, NOT_FOUND)))
    assert time.monotonic() - started_s < 2
    assert trial.outcome is TrialOutcome.FAILED
    assert [key for key, _ in seen].count("DELETE /containers/c1") == 2


def test_no_engine_is_a_failed_trial(tmp_path: Path) -> None:
    assert run_trial(f"unix://{tmp_path}/none.sock").outcome is TrialOutcome.FAILED


@pytest.fixture
def client() -> Iterator[Any]:
    client = docker.from_env()
    yield client
    client.close()


def trials(client: Any) -> list[str]:
    return [entry["Id"] for entry in client.api.containers(all=True, filters={"label": TRIAL_LABEL})]


@pytest.mark.docker
def test_a_real_container_runs_and_is_gone(client: Any) -> None:
    if not client.images.list():
        pytest.skip("no image: run base-image.sh")
    others, started_s = trials(client), time.monotonic()  # others: of a console on this machine
    trial = run_trial(DEFAULT_ADDRESS)
    assert trial.outcome in (TrialOutcome.RAN, TrialOutcome.NO_COMMAND), trial.detail
    assert time.monotonic() - started_s < 15
    assert set(trials(client)) <= set(others)


@pytest.mark.docker
def test_a_real_image_without_the_command(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pause = [tag for image in client.images.list() for tag in image.tags if "pause" in tag]
    if not pause:
        pytest.skip("no pause image: run base-image.sh")
    monkeypatch.setattr(trial_module, "_small_images", lambda api: pause[:1])
    others = trials(client)
    trial = run_trial(DEFAULT_ADDRESS)
    assert (trial.outcome, trial.image) == (TrialOutcome.NO_COMMAND, pause[0])
    assert set(trials(client)) <= set(others)


@pytest.mark.docker
def test_what_a_killed_process_left_behind_is_taken_away(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [tag for image in client.images.list() for tag in image.tags]
    if not images:
        pytest.skip("no image: run base-image.sh")
    left = client.api.create_container(images[0], entrypoint=["true"], labels={TRIAL_LABEL: "true"})["Id"]
    monkeypatch.setattr(trial_module, "_small_images", lambda api: [])
    run_trial(DEFAULT_ADDRESS)
    assert left in trials(client), "one that is younger than a minute may be in use"
    monkeypatch.setattr(trial_module, "_STALE_AFTER_S", -1.0)
    run_trial(DEFAULT_ADDRESS)
    assert left not in trials(client)
