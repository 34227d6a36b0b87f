from __future__ import annotations

import struct
import time
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.gguf_header import check_gguf, read_gguf_header
from engine.weights.sources import find_source

_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
_HUGE = st.sampled_from([0, 1, 2, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def key(name: bytes, type_id: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", type_id) + value


def tensor(name: bytes, shape: tuple[int, ...], offset: int, type_id: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def pack(tensors: list[bytes], keys: list[bytes], num_data_bytes: int, version: int = 3) -> bytes:
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32) + bytes(num_data_bytes)


GOOD = pack(
    [tensor(b"a", (8,), 0), tensor(b"b", (4, 2), 32)],
    [
        key(b"general.architecture", 8, text(b"llama")),
        key(b"n", 4, struct.pack("<I", 7)),
        key(b"tokens", 9, struct.pack("<IQ", 8, 2) + text(b"x") + text(b"yy")),
        key(b"scores", 9, struct.pack("<IQ", 6, 3) + bytes(12)),
    ],
    64,
)


def write(folder: Path, raw: bytes) -> Path:
    file = folder / "m.gguf"
    file.write_bytes(raw)
    return file


def refusal_of(file: Path) -> str | None:
    try:
        check_gguf(file)
    except WeightsError as error:
        return str(error)
    return None


def test_a_good_header(tmp_path: Path) -> None:
    header = read_gguf_header(write(tmp_path, GOOD))
    assert header.version == 3
    assert header.keys == {"general.architecture": "llama", "n": 7, "tokens#": 2, "scores#": 3}
    assert [(found.name, found.shape, found.num_bytes) for found in header.tensors] == [
        ("a", (8,), 32),
        ("b", (4, 2), 32),
    ]


def test_a_file_of_the_library(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokens", ["a", "b"])
    writer.add_tensor("x", np.ones((4, 32), dtype=np.float32))
    writer.add_tensor("y", np.ones(3, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    theirs, ours = gguf.GGUFReader(tmp_path / "m.gguf"), read_gguf_header(tmp_path / "m.gguf")
    assert ours.data_offset == theirs.data_offset
    assert [(found.name, found.num_bytes) for found in ours.tensors] == [
        (found.name, found.n_bytes) for found in theirs.tensors
    ]


@pytest.mark.model
def test_the_sample() -> None:
    file = find_source("sample").gguf_file
    assert file is not None
    header = read_gguf_header(file)
    assert len(header.tensors) == 272
    assert header.keys["tokenizer.ggml.tokens#"] == 49152
    last = max(header.tensors, key=lambda found: found.offset)
    assert header.data_offset + last.offset + last.num_bytes <= file.stat().st_size


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"GGUF", "asks for 4 bytes at 4, beyond all 4 bytes; it is cut short or damaged"),
        (b"GGUF" + b"\xff" * 200, "is of version 4294967295, and 2 and 3 can be read"),
        (pack([], [], 0, version=3 << 24), "in the other byte order"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0) + bytes(100), "says that it has 9,223,372,036,854,775,808 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 10**6) + bytes(100), "says that it has 1,000,000 keys, and there is room"),
        (pack([], [], 100), "it has no tensors"),
        (pack([], [struct.pack("<Q", 2**62) + b"x" * 40], 100), "a name of 4,611,686,018,427,387,904 bytes"),
        (pack([], [key(b"k", 8, struct.pack("<Q", 2**62))], 100), "asks for 4,611,686,018,427,387,904 bytes"),
        (pack([], [key(b"k", 9, struct.pack("<IQ", 8, 2**40))], 99), "1,099,511,627,776 values in an array"),
        (pack([], [key(b"k", 9, struct.pack("<IQ", 9, 1) + bytes(40))], 99), "an array of type 9, which no model has"),
        (pack([], [key(b"k", 77, bytes(40))], 9), "a value of type 77"),
        (pack([], [key(b"k", 0, b"\0"), key(b"k", 0, b"\0")], 9), "gives the key 'k' twice"),
        (pack([], [key(b"\xff\xfe", 0, b"\0")], 9), "not UTF-8"),
        (pack([tensor(b"a", (8,), 0), tensor(b"a", (8,), 32)], [], 64), "gives a tensor twice"),
        (pack([tensor(b"a", (8,), 0), tensor(b"b", (8,), 16)], [], 64), "'b' is not aligned or lies on 'a'"),
        (pack([tensor(b"a", (16,), 0), tensor(b"b", (8,), 32)], [], 64), "'b' is not aligned or lies on 'a'"),
        (pack([tensor(b"a", (8,), 32)], [], 63), "'a' ends at byte .* and the file at"),
        (pack([tensor(b"a", (2**40, 2**40), 0)], [], 64), "'a' ends at byte"),
        (pack([tensor(b"a", (2**60, 0), 0)], [], 64), "'a' has a dimension of 0"),
        (pack([tensor(b"a", (8,), 0, 99)], [], 64), "is of type 99, which is not known"),
        (pack([tensor(b"a", (33,), 0, 2)], [], 640), "rows of 33, which is no multiple of 32"),
        (pack([tensor(b"a", (1,) * 5, 0)], [], 64), "5 dimensions, and 1 to 4 are allowed"),
        (pack([tensor(b"a", (8,), 0)], [key(b"general.alignment", 4, struct.pack("<I", 48))], 64), "alignment is 48"),
    ],
)
def test_headers_that_cannot_be_true(tmp_path: Path, raw: bytes, words: str) -> None:
    with pytest.raises(WeightsError, match=rf"m\.gguf cannot be read as a model: .*{words}"):
        check_gguf(write(tmp_path, raw))


def test_other_files(tmp_path: Path) -> None:
    for raw in (b"", b"GGU", b"<!DOCTYPE html>"):
        with pytest.raises(WeightsError, match="does not begin with the letters GGUF"):
            check_gguf(write(tmp_path, raw))
    with pytest.raises(WeightsError, match="cannot be read: Is a directory"):
        check_gguf(tmp_path)


def test_an_array_of_millions_is_refused_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, pack([], [key(b"k", 9, struct.pack("<IQ", 0, 5_000_000) + bytes(5_000_000))], 0))
    began_s = time.monotonic()
    assert "more than 4,000,000 values" in str(refusal_of(file))
    assert time.monotonic() - began_s < 10


@_ONE_FOLDER
@given(raw=st.binary(max_size=300))
def test_no_bytes_do_worse_than_a_refusal(tmp_path: Path, raw: bytes) -> None:
    assert refusal_of(write(tmp_path, b"GGUF\x03\0\0\0" + raw)) is not None


@settings(parent=_ONE_FOLDER, max_examples=200)
@given(data=st.data())
def test_a_good_file_with_numbers_changed(tmp_path: Path, data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(4, len(raw) - 72))
        raw[place : place + 8] = struct.pack("<Q", data.draw(_HUGE | st.integers(0, 2**64 - 1)))
    file = write(tmp_path, bytes(raw))
    began_s = time.monotonic()
    refusal = refusal_of(file)
    assert time.monotonic() - began_s < 10
    if refusal is None:  # what passes, the library reads
        theirs = [(found.name, found.n_bytes) for found in gguf.GGUFReader(file).tensors]
        assert theirs == [(found.name, found.num_bytes) for found in read_gguf_header(file).tensors]


@_ONE_FOLDER
@given(length=st.integers(0, len(GOOD) - 1))
def test_a_good_file_cut_anywhere(tmp_path: Path, length: int) -> None:
    assert refusal_of(write(tmp_path, GOOD[:length])) is not None
