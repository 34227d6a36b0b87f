"""The header of a GGUF file, read with bounds before the gguf package's reader, which has none, sees it.

The format: magic, version, counts, then keys with typed values, then tensors with dimensions, type and offset, then
their bytes, aligned. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.files import OpenFile
from engine.weights.strict_json import shorten

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
# A vocabulary of a million tokens with its merges is under both. The reader behind this one takes about ten
# microseconds a value.
_MAX_HEADER_BYTES = 64 << 20
_MAX_VALUES = 4_000_000
_MAX_NAME_BYTES = 1 << 16
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<B", 10: "<Q", 11: "<q", 12: "<d"}
_ALIGNMENT_KEY = "general.alignment"
_MIN_KEY_BYTES, _MIN_TENSOR_BYTES = 13, 28

Scalar = str | int | float


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: `shape` as the file has it (the fastest dimension first), `type_id` GGML's number of its type,
    `offset` from the beginning of the data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What the file says of itself. `keys` has the values that are single; of an array it has the length alone, under
    the key with `#` behind."""

    version: int
    keys: dict[str, Scalar]
    tensors: tuple[GgufTensor, ...]
    data_offset: int


def check_gguf(file: Path) -> None:
    """Read the header and look at every count and offset in it against the length of the file.

    Raises:
        WeightsError: it is no GGUF file, or its header cannot be true.
    """
    read_gguf_header(file)


def read_gguf_header(file: Path) -> GgufHeader:
    """The header; takes tens of milliseconds for a large vocabulary.

    Raises:
        WeightsError: it is no GGUF file, or its header cannot be true.
    """
    try:
        with file.open("rb", buffering=1 << 20) as stream:
            return parse_gguf_header(OpenFile(str(file), file.stat().st_size, stream))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from error


def parse_gguf_header(file: OpenFile) -> GgufHeader:
    """The header of a file that is not necessarily here; nothing beyond it is read. Raises as `read_gguf_header`."""
    try:
        if file.stream.read(len(_MAGIC)) != _MAGIC:
            raise WeightsError(f"{file} is not a GGUF file: it does not begin with the letters GGUF")
        return _read(_Cursor(file))
    except _BadHeaderError as error:
        raise WeightsError(f"{file} cannot be read as a model: {error}; {file.remedy}") from error


class _BadHeaderError(Exception):
    """What cannot be true, in words that fit after a colon."""


class _Cursor:
    """Reads onward and never past the bound, nor more than the file has."""

    def __init__(self, file: OpenFile) -> None:
        self._stream, self.size = file.stream, file.size_bytes
        self.position = len(_MAGIC)
        self.num_values = 0

    @property
    def left(self) -> int:
        return min(self.size, _MAX_HEADER_BYTES) - self.position

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > self.left:
            bound = f"the first {_MAX_HEADER_BYTES:,}" if self.size > _MAX_HEADER_BYTES else f"all {self.size:,}"
            raise _BadHeaderError(
                f"its header asks for {num_bytes:,} bytes at {self.position:,}, beyond {bound} bytes; it is cut short "
                "or damaged"
            )
        raw = self._stream.read(num_bytes)
        if len(raw) != num_bytes:
            raise _BadHeaderError("it became shorter while it was read")
        self.position += num_bytes
        return raw

    def number(self, format_: str) -> int:
        value: int = struct.unpack(format_, self.take(struct.calcsize(format_)))[0]
        return value

    def count(self, what: str, item_bytes: int) -> int:
        """A count of things that take at least `item_bytes` each."""
        count = self.number("<Q")
        if count > self.left // item_bytes:
            room = self.left // item_bytes
            raise _BadHeaderError(f"it says that it has {count:,} {what}, and there is room for {room:,}")
        return count

    def text(self, max_bytes: int) -> str:
        length = self.number("<Q")
        if length > max_bytes:
            raise _BadHeaderError(f"it has a name of {length:,} bytes, and {max_bytes:,} are allowed")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise _BadHeaderError("it has a name that is not UTF-8") from error

    def tally(self, num_values: int) -> None:
        self.num_values += num_values
        if self.num_values > _MAX_VALUES:
            raise _BadHeaderError(f"its keys hold more than {_MAX_VALUES:,} values")


def _read(cursor: _Cursor) -> GgufHeader:
    version = cursor.number("<I")
    if version not in _VERSIONS:
        order = ", in the other byte order" if version & 0xFFFF == 0 else ""
        raise _BadHeaderError(f"it is of version {version}{order}, and {_VERSIONS[0]} and {_VERSIONS[1]} can be read")
    num_tensors = cursor.count("tensors", _MIN_TENSOR_BYTES)
    num_keys = cursor.count("keys", _MIN_KEY_BYTES)
    keys: dict[str, Scalar] = {}
    for _ in range(num_keys):
        name = cursor.text(_MAX_NAME_BYTES)
        if name in keys or f"{name}#" in keys:
            raise _BadHeaderError(f"it gives the key {shorten(name)!r} twice")
        type_id = cursor.number("<I")
        is_array = type_id == _ARRAY
        keys[f"{name}#" if is_array else name] = _skip_array(cursor) if is_array else _read_value(cursor, type_id)
    listed = [_read_tensor(cursor) for _ in range(num_tensors)]
    return GgufHeader(version, keys, *_place(cursor, keys, listed))


def _read_value(cursor: _Cursor, type_id: int) -> Scalar:
    cursor.tally(1)
    if type_id == _STRING:
        length = cursor.number("<Q")
        return cursor.take(length).decode(errors="replace")
    if type_id not in _SCALARS:
        raise _BadHeaderError(f"it has a value of type {type_id}, which is not known")
    return cursor.number(_SCALARS[type_id])


def _skip_array(cursor: _Cursor) -> int:
    """Go past an array; its length."""
    type_id = cursor.number("<I")
    if type_id == _ARRAY or not (type_id == _STRING or type_id in _SCALARS):
        raise _BadHeaderError(f"it has an array of type {type_id}, which no model has")
    item_bytes = 8 if type_id == _STRING else struct.calcsize(_SCALARS[type_id])
    length = cursor.count("values in an array", item_bytes)
    cursor.tally(length)
    if type_id != _STRING:
        cursor.take(length * item_bytes)
        return length
    for _ in range(length):
        cursor.take(cursor.number("<Q"))
    return length


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """A tensor's entry; what needs GGML's table of types is looked at by `_place`."""
    name = cursor.text(_MAX_NAME_BYTES)
    num_dimensions = cursor.number("<I")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise _BadHeaderError(
            f"tensor {shorten(name)!r} has {num_dimensions:,} dimensions, and 1 to {_MAX_DIMENSIONS} are allowed"
        )
    shape = tuple(cursor.number("<Q") for _ in range(num_dimensions))
    type_id, offset = cursor.number("<I"), cursor.number("<Q")
    return GgufTensor(name, shape, type_id, offset, _tensor_bytes(name, shape, type_id))


def _tensor_bytes(name: str, shape: tuple[int, ...], type_id: int) -> int:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # here: it imports numpy, which little else needs

    try:
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(type_id)]
    except (ValueError, KeyError) as error:
        raise _BadHeaderError(f"tensor {shorten(name)!r} is of type {type_id}, which is not known") from error
    if 0 in shape:  # nothing of another dimension's size would be bounded by the file's length
        raise _BadHeaderError(f"tensor {shorten(name)!r} has a dimension of 0")
    if shape[0] % block:
        raise _BadHeaderError(f"tensor {shorten(name)!r} has rows of {shape[0]:,}, which is no multiple of {block}")
    return math.prod(shape) // int(block) * int(block_bytes)


def _place(cursor: _Cursor, keys: dict[str, Scalar], tensors: list[GgufTensor]) -> tuple[tuple[GgufTensor, ...], int]:
    """The tensors and where their data begins, once all lie in the file and none on another."""
    alignment = keys.get(_ALIGNMENT_KEY, 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise _BadHeaderError(f"its alignment is {shorten(str(alignment))}, and a power of two is asked for")
    if not tensors:
        raise _BadHeaderError("it has no tensors")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise _BadHeaderError("it gives a tensor twice")
    data_offset = -(-cursor.position // alignment) * alignment
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.num_bytes)):
        if tensor.offset % alignment or tensor.offset < end:
            raise _BadHeaderError(f"tensor {shorten(tensor.name)!r} is not aligned or lies on {shorten(before)!r}")
        end, before = tensor.offset + tensor.num_bytes, tensor.name
        if data_offset + end > cursor.size:
            raise _BadHeaderError(
                f"tensor {shorten(before)!r} ends at byte {data_offset + end:,} and the file at {cursor.size:,}; it "
                "is cut short or damaged"
            )
    return tuple(tensors), data_offset
