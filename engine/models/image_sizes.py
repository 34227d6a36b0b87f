"""The most tokens that one image of a model can have, by the files of its image processor. Plain JSON, as transformers'
own reading imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.weights.strict_json import parse_json

# Their bound counts the pixels of two frames, which an image is taken for.
_TWO_FRAMES = ("Glm4v", "Glm46V")
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def largest_image_tokens(folder: Path) -> int | None:
    """Tokens of the largest image that the processor of `folder` makes; None where its files name no bound in pixels
    (each image then has as many tokens, or is cut into tiles)."""
    return image_tokens(_read(folder / name) for name in PROCESSOR_FILES)


def image_tokens(files: Iterable[bytes]) -> int | None:
    """As `largest_image_tokens`, of what `PROCESSOR_FILES` hold, in their order; empty for one that is missing."""
    return next((found for raw in files if (found := _tokens(_parse(raw))) is not None), None)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _parse(raw: bytes) -> Mapping[str, Any]:
    """Nothing for a file that is missing or broken: loading will say so."""
    try:
        values = parse_json(raw)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}


def _tokens(values: Mapping[str, Any]) -> int | None:
    nested = values.get("image_processor")
    processor = nested if isinstance(nested, Mapping) else values
    size, kind = processor.get("size"), str(processor.get("image_processor_type"))
    bounds = (processor.get("max_pixels"), size.get("longest_edge") if isinstance(size, Mapping) else None)
    patch, merge = processor.get("patch_size"), processor.get("merge_size")
    pixels = next((bound for bound in bounds if isinstance(bound, int)), None)
    if pixels is None or not (isinstance(patch, int) and isinstance(merge, int) and patch * merge > 0):
        return None
    return pixels // (2 if kind.startswith(_TWO_FRAMES) else 1) // (patch * merge) ** 2
