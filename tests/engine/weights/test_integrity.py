from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import WeightsError
from engine.weights.integrity import check_folder, check_gguf, check_safetensors, read_header, sha256_of

_HEADER = {
    "__metadata__": {"format": "pt"},
    "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
}


def _write(file: Path, header: Any = _HEADER, num_bytes: int = 24) -> Path:
    raw = json.dumps(header).encode()
    file.write_bytes(len(raw).to_bytes(8, "little") + raw + bytes(num_bytes))
    return file


def test_a_whole_file(tmp_path: Path) -> None:
    file = _write(tmp_path / "model.safetensors")
    check_safetensors(file)
    assert read_header(file) == _HEADER


@pytest.mark.parametrize(("num_bytes", "words"), [(23, "cut short"), (0, "cut short"), (25, "damaged")])
def test_the_length_must_be_the_headers(tmp_path: Path, num_bytes: int, words: str) -> None:
    with pytest.raises(WeightsError, match=rf"its header says \d+: the file is {words}, fetch it again"):
        check_safetensors(_write(tmp_path / "m.safetensors", num_bytes=num_bytes))


@pytest.mark.parametrize("raw", [b"", b"\x05", b"PK\x03\x04 this is a zip file", bytes(64), b"\xff" * 64])
def test_what_is_no_safetensors_file(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match="is not a safetensors file, or was cut short"):
        check_safetensors(file)


@pytest.mark.parametrize(
    "header",
    [
        [1],
        777,
        {"a": 1},
        {"a": {}},
        {"a": {"data_offsets": [0]}},
        {"a": {"data_offsets": "no"}},
        {"a": {"data_offsets": None}},
    ],
)
def test_a_header_of_another_shape(tmp_path: Path, header: Any) -> None:
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        check_safetensors(_write(tmp_path / "m.safetensors", header))


def test_a_header_that_is_not_json(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes((4).to_bytes(8, "little") + b"{{{{")
    with pytest.raises(WeightsError, match="its header is not JSON"):
        check_safetensors(file)


def test_a_header_cut_in_the_middle(tmp_path: Path) -> None:
    file = _write(tmp_path / "m.safetensors")
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(WeightsError, match="cut short"):
        check_safetensors(file)


def test_all_files_of_a_folder_are_checked(tmp_path: Path) -> None:
    files = [_write(tmp_path / f"model-{index}.safetensors") for index in range(2)]
    assert check_folder(tmp_path) == files
    _write(files[1], num_bytes=3)
    with pytest.raises(WeightsError, match=r"model-1\.safetensors has"):
        check_folder(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=rf"only pickled weights \({name}\).*convert them to safetensors"):
        check_folder(tmp_path)


def test_no_weights_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no \.safetensors file: the weights are missing"):
        check_folder(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "model-1.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=r"lacks 1 of 2 shards \(model-2\.safetensors\): fetch"):
        check_folder(tmp_path)
    _write(tmp_path / "model-2.safetensors")
    assert len(check_folder(tmp_path)) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", "{", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}'])
def test_an_index_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot be read as an index of shards"):
        check_folder(tmp_path)


def test_gguf_by_its_first_letters(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF\x03\x00\x00\x00")
    check_gguf(file)
    for raw in (b"", b"GGU", b"<!DOCTYPE html>"):
        file.write_bytes(raw)
        with pytest.raises(WeightsError, match="does not begin with the letters GGUF"):
            check_gguf(file)


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 3_000_000)
    assert sha256_of(file) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
