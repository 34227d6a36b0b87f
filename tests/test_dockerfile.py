"""The image is built, starts, becomes healthy, answers, and refuses what it must: on a real container engine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes import wait_until

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[1]
BASE_IMAGE = os.environ.get("TEST_BASE_IMAGE", "python:3.11-slim")
KEY = "test-key"


@pytest.fixture(scope="module")
def client() -> Iterator[DockerClient]:
    """The engine, where there is one that has the base image."""
    import docker

    made = docker.from_env(timeout=900)
    if not made.images.list(name=BASE_IMAGE):
        pytest.skip(f"the container engine has no image {BASE_IMAGE}; pull it, or name another by TEST_BASE_IMAGE")
    yield made
    made.close()


@pytest.fixture(scope="module")
def image(client: DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The CPU image, with torch's wheel taken from where pip finds it here."""
    if not importlib.metadata.version("torch").endswith("+cpu"):
        pytest.skip("pip does not find torch's CPU wheel on this machine: no wheel for the CPU image")
    context = tmp_path_factory.mktemp("context")
    for name in (".streamlit", "dashboard", "engine", "pages"):
        shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, context)
    pin = next(
        line.split()[0] for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:7] == "torch=="
    )
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(context / "wheels"), pin]
    subprocess.run(download, check=True, timeout=300)
    tag = "autoglm-console:test"
    arguments = {"ACCELERATOR": "cpu", "BASE_IMAGE": BASE_IMAGE}
    client.images.build(path=str(context), tag=tag, buildargs=arguments, rm=True, forcerm=True)
    yield tag
    client.images.remove(tag, force=True)


@pytest.fixture(scope="module")
def container(client: DockerClient, image: str) -> Iterator[Container]:
    """A healthy container on a free port of loopback."""
    made = client.containers.run(
        image, detach=True, ports={"8501/tcp": ("127.0.0.1", None)}, environment={"CONSOLE_API_KEYS": KEY}
    )
    try:

        def is_healthy() -> bool:
            made.reload()
            assert made.status == "running", made.logs().decode()[-2000:]
            return bool(made.attrs["State"]["Health"]["Status"] == "healthy")

        wait_until(is_healthy, 240)
        yield made
    finally:
        made.remove(force=True, v=True)


def address(container: Container) -> str:
    return f"http://127.0.0.1:{container.ports['8501/tcp'][0]['HostPort']}"


def ask(container: Container, headers: dict[str, str]) -> dict[str, object]:
    body = {
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{address(container)}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.loads(answer.read())
    return found


def test_it_brings_compiled_steps_along(container: Container) -> None:
    """It has no compiler of its own."""
    code = "from engine.inference.compiled.library import library; raise SystemExit(library().why_not)"
    done = container.exec_run(["python", "-c", code])
    assert (done.exit_code, done.output) == (0, b"")


def test_it_answers_with_a_key_and_not_without(container: Container) -> None:
    assert "Paris" in str(ask(container, {"authorization": f"Bearer {KEY}"}))
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask(container, {})
    assert refusal.value.code == 401
    refusal.value.close()


def test_it_does_not_run_as_root_and_keeps_its_data_in_the_volume(container: Container) -> None:
    code, output = container.exec_run("id -u")
    assert (code, output.decode().strip()) == (0, "10001")
    code, output = container.exec_run("ls /data")
    assert set(output.decode().split()) >= {"measurements.duckdb", "state.sqlite", "weights"}


def test_without_a_key_it_does_not_listen_for_everyone(client: DockerClient, image: str) -> None:
    made = client.containers.run(image, detach=True)
    try:
        assert made.wait(timeout=60)["StatusCode"] == 2
        assert "set CONSOLE_API_KEYS to at least one key" in made.logs().decode()
    finally:
        made.remove(force=True, v=True)
