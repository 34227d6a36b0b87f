from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.remote_code import check_remote_code, find_pickles, find_remote_code, read_config


def folder_with(folder: Path, **files: object) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_plain_model_brings_no_code(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"model_type": "llama", "auto_map": {}}, tokenizer_config={})
    assert find_remote_code(folder) is None
    assert check_remote_code(folder) is None


@pytest.mark.parametrize("name", ["config", "tokenizer_config", "processor_config", "preprocessor_config"])
def test_code_is_refused_unless_allowed(tmp_path: Path, name: str) -> None:
    folder = folder_with(tmp_path, **{name: {"auto_map": {"AutoModel": "modeling_x.X"}}})
    (folder / "modeling_x.py").touch()
    with pytest.raises(
        WeightsError, match=rf"brings Python code of its own \({name}\.json\).*CONSOLE_ALLOW_REMOTE_CODE"
    ):
        check_remote_code(folder)
    allowed = check_remote_code(folder, allow=True)
    assert allowed is not None
    assert "modeling_x.py" in allowed.warning
    assert allowed.config_files == (f"{name}.json",)


def test_code_of_another_place_is_code(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"auto_map": {"AutoModel": "someone/repo--modeling_x.X"}})
    found = find_remote_code(folder)
    assert found is not None
    assert found.python_files == ()
    assert "config.json" in found.warning


def test_generation_code_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "custom_generate").mkdir()
    with pytest.raises(WeightsError, match=r"\(custom_generate\)"):
        check_remote_code(folder_with(tmp_path, config={"model_type": "llama"}))


def test_a_type_that_transformers_has_runs_its_code(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config={"model_type": "phi3", "auto_map": {"AutoModel": "modeling_phi3.X"}})
    assert check_remote_code(folder, native_types={"phi3"}) is None
    with pytest.raises(WeightsError):
        check_remote_code(folder, native_types={"llama"})


def test_pickles_are_named(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin", "a.pt", "tokenizer.json"):
        (tmp_path / name).touch()
    assert find_pickles(tmp_path) == ("a.pt", "pytorch_model.bin")


@pytest.mark.parametrize("raw", [b"[]", b"{", b"\xff", b'{"a":1,"a":2}', b"[" * 100_000, b" " * (16 * 2**20 + 1)])
def test_configs_that_cannot_be_read(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(WeightsError, match=r"config\.json cannot be read as a config"):
        find_remote_code(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=100))
def test_no_bytes_do_worse_than_a_refusal(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "config.json"
    file.write_bytes(raw)
    try:
        config = read_config(file)
    except WeightsError:
        return
    assert config == json.loads(raw.decode())
