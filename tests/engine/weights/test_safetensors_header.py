from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from engine.errors import WeightsError
from engine.weights.safetensors_header import (
    DTYPE_BITS,
    MAX_HEADER_BYTES,
    check_safetensors,
    count_elements,
)

_SIZES = (
    st.integers(-5, 40) | st.integers() | st.sampled_from([2**31, 2**63, 2**64, 10**400]) | st.booleans() | st.none()
)
_ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I8", "F4", "F128", ""]) | st.none() | st.integers(),
        "shape": st.lists(_SIZES, max_size=4) | st.text(max_size=3) | st.none(),
        "data_offsets": st.lists(_SIZES, max_size=3) | st.none() | st.text(max_size=2),
    },
)
_HEADERS = st.dictionaries(
    st.text(max_size=4) | st.just("__metadata__"), _ENTRIES | st.integers() | st.none(), max_size=4
)
_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def pack(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def outcome(file: Path) -> str | None:
    """None when the file is good, else the refusal; any other exception fails the test."""
    try:
        check_safetensors(file)
    except WeightsError as error:
        return str(error)
    return None


def test_files_of_the_library_pass(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool, torch.int64, torch.float8_e4m3fn]
    tensors = {str(dtype): torch.zeros(3, 5).to(dtype) for dtype in dtypes}
    save_file({**tensors, "scalar": torch.tensor(1.0), "empty": torch.zeros(0, 4)}, file, metadata={"format": "pt"})
    assert outcome(file) is None
    assert set(check_safetensors(file)) == {*tensors, "scalar", "empty", "__metadata__"}


@pytest.mark.parametrize(
    ("header", "num_bytes", "words"),
    [
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', 1, "gives the key 'a' twice"),
        (b'{"a":' + b"[" * 100_000, 0, "nested too deeply"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "'b' begins at byte 4 and the one before it, 'a', ends at 8"),
        ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "'b' begins at byte 8"),
        ({"a": entry(4, 8)}, 8, "'a' begins at byte 4"),
        ({"a": entry(-1, 3)}, 3, "not counts that can be"),
        ({"a": entry(4, 0, shape=[0])}, 4, "needs 0 bytes and has -4"),
        ({"a": entry(0, 2**64, shape=[2**64])}, 0, "not counts that can be"),
        ({"a": entry(0, 4, "F32", [2])}, 4, "needs 8 bytes and has 4; fetch it again"),
        ({"a": entry(0, 4, "F32", [2**40, 2**40, 2**40])}, 4, "is damaged"),
        ({"a": entry(0, 4, "F32", [1] * 65)}, 4, "not counts that can be"),
        ({"a": entry(0, 4, "F31", [1])}, 4, "dtype 'F31', which no safetensors file has; known are BOOL"),
        ({"a": entry(0, 4, shape=[True])}, 4, "not counts that can be"),
        ({"__metadata__": {"a": 1}}, 0, "is not a table of texts"),
        ({"__metadata__": []}, 0, "is not a table of texts"),
        ({"a" * 10_000: 3}, 0, r"a\.\.\.'"),
    ],
)  # fmt: skip
def test_headers_that_cannot_be_true(tmp_path: Path, header: Any, num_bytes: int, words: str) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(pack(header, bytes(num_bytes)))
    with pytest.raises(WeightsError, match=words) as refusal:
        check_safetensors(file)
    assert len(str(refusal.value)) < 1000


def test_the_header_length_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    with file.open("wb") as stream:
        stream.write((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
        stream.truncate(2 * MAX_HEADER_BYTES)  # a sparse file: it takes no disk
    with pytest.raises(WeightsError, match="header length is 33,554,433, and 2 to 33,554,432 bytes are possible"):
        check_safetensors(file)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "gone", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read"):
            check_safetensors(path)


@_ONE_FOLDER
@given(header=_HEADERS, num_bytes=st.integers(0, 64))
def test_no_header_does_worse_than_a_refusal(tmp_path: Path, header: Any, num_bytes: int) -> None:
    file = tmp_path / "fuzz.safetensors"
    file.write_bytes(pack(header, bytes(num_bytes)))
    began_s = time.monotonic()
    refusal = outcome(file)
    assert time.monotonic() - began_s < 10
    if refusal is None:  # what passes, the library reads
        with safe_open(file, "pt") as opened:
            assert set(opened.keys()) == set(header) - {"__metadata__"}
    assert [path.name for path in tmp_path.iterdir()] == ["fuzz.safetensors"]


@_ONE_FOLDER
@given(raw=st.binary(max_size=300))
def test_no_bytes_do_worse_than_a_refusal(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "fuzz.safetensors"
    file.write_bytes(raw)
    assert (outcome(file) is None) <= (raw[8:9] == b"{")


@_ONE_FOLDER
@given(data=st.data())
def test_a_good_file_with_bytes_changed(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "fuzz.safetensors"
    raw = bytearray(pack({"a": entry(0, 8), "bb": entry(8, 24, "F32", [2, 2])}, bytes(24)))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 25))] = data.draw(st.integers(0, 255))
    file.write_bytes(raw)
    if outcome(file) is None:
        try:
            safe_open(file, "pt")
        except SafetensorError as error:  # the library knows fewer dtypes than the format has
            pytest.fail(f"passed here and refused there: {error}")


@given(st.lists(st.integers(0, 2**63), max_size=64))
def test_the_product_is_exact_or_beyond_any_file(shape: list[int]) -> None:
    product = 1
    for size in shape:
        product *= size
    assert count_elements(shape) == min(product, 1 << 70)


def test_every_dtype_has_a_width() -> None:
    assert {4, 6, 8, 16, 32, 64} == set(DTYPE_BITS.values())
