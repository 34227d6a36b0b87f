from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.integrity import check_folder, check_safetensors, sha256_of

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
    assert check_safetensors(file) == _HEADER


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


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "{", '{"weight_map": 3}', '{"weight_map": {"a": [1]}}', '{"weight_map": {}, "weight_map": {}}'],
)
def test_an_index_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    _write(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot be read as an index of shards"):
        check_folder(tmp_path)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/passwd", "a/../../b.safetensors", "", "a\0b", "C:\\x"])
def test_shards_outside_the_folder_are_refused(tmp_path: Path, shard: str) -> None:
    _write(tmp_path / "model.safetensors")
    (tmp_path / "m").mkdir()
    _write(tmp_path / "m" / "model.safetensors")
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(WeightsError, match=r"index\.json names the file .* which is refused"):
        check_folder(tmp_path / "m")


def test_links_out_of_the_folder_are_refused_unless_vouched_for(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "m").mkdir()
    blob = _write(tmp_path / "blobs" / "f00d")
    (tmp_path / "m" / "model.safetensors").symlink_to(blob)
    with pytest.raises(WeightsError, match="is a link that leads out of the model folder"):
        check_folder(tmp_path / "m")
    assert check_folder(tmp_path / "m", link_roots=[tmp_path / "blobs"]) == [tmp_path / "m" / "model.safetensors"]


def test_a_shard_of_another_kind_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").touch()
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "pytorch_model.bin"}}')
    with pytest.raises(WeightsError, match=r"names pytorch_model\.bin as a shard, and only \.safetensors"):
        check_folder(tmp_path)


def test_shards_in_folders_are_checked_too(tmp_path: Path) -> None:
    _write(tmp_path / "model.safetensors")
    (tmp_path / "more").mkdir()
    _write(tmp_path / "more" / "b.safetensors", num_bytes=3)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "more/b.safetensors"}}')
    with pytest.raises(WeightsError, match=r"more/b\.safetensors has .* cut short"):
        check_folder(tmp_path)


def test_an_index_without_end(tmp_path: Path) -> None:
    _write(tmp_path / "model.safetensors")
    with (tmp_path / "model.safetensors.index.json").open("wb") as stream:
        stream.truncate(2**30)
    with pytest.raises(WeightsError, match="more than 67,108,864 bytes"):
        check_folder(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.dictionaries(st.text(max_size=3), st.text(alphabet="a./\\\0s", max_size=8) | st.integers() | st.none()))
def test_no_index_does_worse_than_a_refusal(tmp_path: Path, names: dict[str, Any]) -> None:
    folder = tmp_path / "m"
    folder.mkdir(exist_ok=True)
    _write(folder / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    if names:
        with pytest.raises(WeightsError):
            check_folder(folder)
    else:
        assert check_folder(folder) == [folder / "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_sha256(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"x" * 3_000_000)
    assert sha256_of(file) == hashlib.sha256(b"x" * 3_000_000).hexdigest()
