"""Are these files whole, and of a kind that is safe to load?

Only headers are read here, so the check takes milliseconds for any size: a safetensors file says in its header
how long it must be, and a folder's index says which shards belong to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.containment import check_name, resolve_inside
from engine.weights.remote_code import find_pickles
from engine.weights.safetensors_header import check_safetensors
from engine.weights.strict_json import parse_json

__all__ = ["check_folder", "check_safetensors", "sha256_of"]

_CHUNK_BYTES = 1 << 20
_INDEX = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 64 << 20


def check_folder(folder: Path, link_roots: Sequence[Path] = ()) -> list[Path]:
    """The folder's safetensors files, each whole. Files may be links into `link_roots`, the weights cache for one.

    Raises:
        WeightsError: no weights, only pickled ones, a shard missing or outside the folder, or a damaged file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = find_pickles(folder)
        if pickles:
            raise WeightsError(
                f"{folder} holds only pickled weights ({pickles[0]}), which can run code when opened and are "
                "refused: convert them to safetensors"
            )
        raise WeightsError(f"{folder} holds no .safetensors file: the weights are missing")
    shards = _check_index(folder, link_roots)
    for file in files:
        resolve_inside(folder, file.name, link_roots)
    for file in dict.fromkeys([*files, *shards]):
        check_safetensors(file)
    return files


def _check_index(folder: Path, link_roots: Sequence[Path]) -> list[Path]:
    """The shards that the index names, none where there is no index."""
    index = folder / _INDEX
    if not index.is_file():
        return []
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"it has more than {_MAX_INDEX_BYTES:,} bytes")
        named = set(parse_json(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} cannot be read as an index of shards: {error}") from error
    shards = {check_name(shard, index) for shard in named}
    missing = sorted(shard for shard in shards if not (folder / shard).is_file())
    if missing:
        raise WeightsError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards ({missing[0]}): fetch the missing files again"
        )
    for shard in sorted(shards):
        resolve_inside(folder, shard, link_roots)
        if not shard.endswith(".safetensors"):
            raise WeightsError(f"{index} names {shard} as a shard, and only .safetensors files are loaded")
    return [folder / shard for shard in sorted(shards)]


def sha256_of(file: Path) -> str:
    """SHA-256 of the file, as hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
