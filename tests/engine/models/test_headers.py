from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from engine.errors import WeightsError
from engine.models.headers import read_tensors, tensor_info


def test_headers_say_what_the_file_holds(tiny_folder: Path) -> None:
    tensors = {tensor.name: tensor for tensor in read_tensors(tiny_folder)}
    loaded = load_file(tiny_folder / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tuple(value.shape) for name, value in loaded.items()
    }
    assert sum(tensor.stored_bytes for tensor in tensors.values()) == sum(value.nbytes for value in loaded.values())
    assert all(tensor.is_cast for tensor in tensors.values())


def test_shards_are_read_together_and_may_not_repeat_each_other(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    shutil.copy(folder / "model.safetensors", folder / "model-00002.safetensors")
    with pytest.raises(WeightsError, match="repeats the tensor"):
        read_tensors(folder)


def test_a_truncated_file_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    raw = (tiny_folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(raw[:-1])
    with pytest.raises(WeightsError, match="cut short"):
        read_tensors(tmp_path)


@given(dtype=st.sampled_from(["F32", "BF16", "F8_E4M3", "I8", "F4"]), shape=st.lists(st.integers(0, 64), max_size=4))
def test_stored_bytes_are_elements_times_bits(dtype: str, shape: list[int]) -> None:
    tensor = tensor_info("t", dtype, shape)
    bits = {"F32": 32, "BF16": 16, "F8_E4M3": 8, "I8": 8, "F4": 4}[dtype]
    assert tensor.stored_bytes == tensor.num_elements * bits // 8
    assert tensor.is_cast == (dtype in ("F32", "BF16"))


@given(raw=st.binary(max_size=300))
def test_garbage_is_one_error(raw: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    header = json.dumps(raw.decode("latin-1")).encode()
    for content in (raw, len(raw).to_bytes(8, "little") + raw, len(header).to_bytes(8, "little") + header):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(WeightsError):
            read_tensors(folder)
