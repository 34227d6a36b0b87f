"""The header of a safetensors file, read as a stranger wrote it: every length is checked before it is believed.

The format: eight bytes of header length (little-endian), the header as JSON, then the tensors' bytes with nothing
between and nothing after. https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.files import OpenFile
from engine.weights.strict_json import parse_json, shorten

# The format allows 100 MB. The longest headers known are a tenth of this bound, and reading JSON takes memory of many
# times its length.
MAX_HEADER_BYTES = 32 << 20
DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    **{"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6},
}
_METADATA = "__metadata__"
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 64


def check_safetensors(file: Path) -> dict[str, Any]:
    """The header: tensor names with dtype, shape and offsets, and `__metadata__` where there is one.

    Raises:
        WeightsError: see `check_header`; or the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            size_bytes = stream.seek(0, 2)
            stream.seek(0)
            return check_header(OpenFile(str(file), size_bytes, stream))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from error


def check_header(file: OpenFile) -> dict[str, Any]:
    """As `check_safetensors`, of a file that need not be on this machine. Nothing beyond the header is read, and every
    entry of it is looked at against the length of the file.

    Raises:
        WeightsError: it is no such header, the file is not as long as its header says, or an entry's offsets, shape and
            dtype do not agree with each other or with the entries beside it.
    """
    header, data_bytes = _read(file)
    spans = sorted(_check_entry(file, name, entry) for name, entry in header.items() if name != _METADATA)
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{file} is not a safetensors file: its {_METADATA} is not a table of texts")
    _check_length(file, data_bytes, max((end for _, end, _ in spans), default=0))
    for (_, end, name), (begin, _, following) in itertools.pairwise([(0, 0, ""), *spans]):
        if begin != end:
            raise WeightsError(
                f"{file} is damaged: tensor {shorten(following)!r} begins at byte {begin:,} and the one before it, "
                f"{shorten(name)!r}, ends at {end:,}; {file.remedy}"
            )
    return header


def _check_length(file: OpenFile, data_bytes: int, expected_bytes: int) -> None:
    if data_bytes != expected_bytes:
        before = file.size_bytes - data_bytes
        raise WeightsError(
            f"{file} has {before + data_bytes:,} bytes and its header says {before + expected_bytes:,}: the file is "
            f"{'cut short' if data_bytes < expected_bytes else 'damaged'}, {file.remedy}"
        )


def _read(file: OpenFile) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes follow it."""
    length = int.from_bytes(file.stream.read(_LENGTH_BYTES), "little")
    if not 2 <= length <= min(MAX_HEADER_BYTES, file.size_bytes):
        raise WeightsError(
            f"{file} is not a safetensors file, or was cut short: its header length is {length:,}, and 2 to "
            f"{min(MAX_HEADER_BYTES, file.size_bytes):,} bytes are possible; {file.remedy}"
        )
    raw = file.stream.read(length)
    try:
        header = parse_json(raw)
    except ValueError as error:
        cut = ": the file is cut short" if len(raw) < length else ""
        raise WeightsError(
            f"{file} is not a safetensors file: its header is not JSON that can be read, {error}{cut}"
        ) from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file} is not a safetensors file: its header is not a table")
    return header, file.size_bytes - _LENGTH_BYTES - length


def _check_entry(file: OpenFile, name: str, entry: Any) -> tuple[int, int, str]:
    """Begin and end of a tensor in the data, and its name, once its shape fills them."""
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise WeightsError(
            f"{file} is not a safetensors file: its header gives no dtype, shape and offsets for {shorten(name)!r}"
        ) from error
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS or not all(map(_is_size, [*shape, begin, end])):
        raise WeightsError(
            f"{file} is not a safetensors file: shape or offsets of {shorten(name)!r} are not counts that can be"
        )
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise WeightsError(
            f"{file} has tensor {shorten(name)!r} of dtype {shorten(repr(dtype))}, which no safetensors file has; "
            f"known are {', '.join(DTYPE_BITS)}"
        )
    num_bits = count_elements(shape) * DTYPE_BITS[dtype]
    if num_bits != (end - begin) * 8:
        raise WeightsError(
            f"{file} is damaged: tensor {shorten(name)!r} of shape {shorten(str(shape))} and dtype {dtype} needs "
            f"{num_bits / 8:,.0f} bytes and has {end - begin:,}; {file.remedy}"
        )
    return begin, end, name


def _is_size(value: object) -> bool:
    """Whether it is a count that a 64-bit file can have."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def count_elements(shape: list[int]) -> int:
    """The product of `shape`, or a number beyond any file when it is larger than that: a header can name a shape
    whose product has thousands of digits."""
    if 0 in shape:
        return 0
    product = 1
    for size in shape:
        product = min(product * size, 1 << 70)
    return product
