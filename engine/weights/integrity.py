"""Are these files whole, and of a kind that is safe to load?

Only headers are read here, so the check takes milliseconds for any size: a safetensors file says in its header
how long it must be, and a folder's index says which shards belong to it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.errors import WeightsError

_CHUNK_BYTES = 1 << 20
_MAX_HEADER_BYTES = 100_000_000
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_folder(folder: Path) -> list[Path]:
    """The folder's safetensors files, each whole.

    Raises:
        WeightsError: no weights, only pickled ones, a shard missing, or a file cut short.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
        if pickles:
            raise WeightsError(
                f"{folder} holds only pickled weights ({pickles[0]}), which can run code when opened and are "
                "refused: convert them to safetensors"
            )
        raise WeightsError(f"{folder} holds no .safetensors file: the weights are missing")
    _check_index(folder)
    for file in files:
        check_safetensors(file)
    return files


def _check_index(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} cannot be read as an index of shards: {error}") from error
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards ({missing[0]}): fetch the missing files again"
        )


def check_safetensors(file: Path) -> None:
    """Raise WeightsError unless the file is as long as its header says."""
    size = file.stat().st_size
    header = read_header(file)
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{file} is not a safetensors file: its header gives no offsets") from error
    expected = 8 + _header_length(file) + max(ends, default=0)
    if size != expected:
        raise WeightsError(
            f"{file} has {size:,} bytes and its header says {expected:,}: the file is "
            f"{'cut short' if size < expected else 'damaged'}, fetch it again"
        )


def _header_length(file: Path) -> int:
    with file.open("rb") as stream:
        return int.from_bytes(stream.read(8), "little")


def read_header(file: Path) -> dict[str, Any]:
    """The safetensors header: tensor names with dtype, shape and offsets."""
    length = _header_length(file)
    if not 2 <= length <= min(_MAX_HEADER_BYTES, file.stat().st_size):
        raise WeightsError(f"{file} is not a safetensors file, or was cut short: its header length is {length:,}")
    with file.open("rb") as stream:
        stream.seek(8)
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise WeightsError(f"{file} is not a safetensors file: its header is not JSON") from error
    if not isinstance(header, dict):
        raise WeightsError(f"{file} is not a safetensors file: its header is not a table")
    return header


def check_gguf(file: Path) -> None:
    """Raise WeightsError unless the file begins as GGUF does."""
    with file.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise WeightsError(f"{file} is not a GGUF file: it does not begin with the letters GGUF")


def sha256_of(file: Path) -> str:
    """SHA-256 of the file, as hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
