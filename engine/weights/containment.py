"""Names of files that come from files of others, and whether what they lead to lies where a model may have files.

A model folder's index, manifest and signature name files. None of these names may lead out of the folder: not by
`..`, not by an absolute path, and not through a link, but for links into folders that the caller vouches for, such as
the weights cache, whose folders link to files that models share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.atomic import TEMPORARY_PREFIX
from engine.weights.strict_json import shorten

_MAX_NAME_CHARACTERS = 1024
_HUB_SNAPSHOTS, _HUB_BLOBS = "snapshots", "blobs"


def why_not_a_name(name: object) -> str | None:
    """Why `name` is not the relative name of a file with `/` between its parts; None when it is."""
    if not isinstance(name, str):
        return f"it is a {type(name).__name__}, not text"
    if not 0 < len(name) <= _MAX_NAME_CHARACTERS:
        return f"it has {len(name):,} characters, and 1 to {_MAX_NAME_CHARACTERS:,} are allowed"
    if name.startswith("/") or "\\" in name:
        return "it is an absolute path or has a backslash"
    if not name.isprintable():
        return "it has characters that cannot be printed"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "it leads out of the folder, or has an empty part"
    if any(part.startswith(TEMPORARY_PREFIX) for part in name.split("/")):
        return f"it begins with {TEMPORARY_PREFIX}, as files do that are being written, which nobody checks"
    return None


def check_name(name: object, where: Path | str) -> str:
    """`name`, once it is known to be harmless.

    Raises:
        WeightsError: it is not a relative name inside the folder; `where` is the file that gave it.
    """
    reason = why_not_a_name(name)
    if reason is not None:
        raise WeightsError(
            f"{where} names the file {shorten(repr(name))}, which is refused: {reason}; fetch the model again from a "
            "source that you trust"
        )
    return str(name)


def resolve_inside(folder: Path, name: str, link_roots: Sequence[Path] = ()) -> Path:
    """Where `folder / name` really is.

    Raises:
        WeightsError: that is neither in the folder nor in one of `link_roots`, or it cannot be told.
    """
    path = folder / name
    try:
        real, roots = path.resolve(), [root.resolve() for root in (folder, *_hub_roots(folder), *link_roots)]
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
        raise WeightsError(f"{path} cannot be followed: {error}; put the file itself there") from error
    if not any(real.is_relative_to(root) for root in roots):
        raise WeightsError(
            f"{path} is a link that leads out of the model folder, to {real}: put the file itself there, not a link"
        )
    return real


def _hub_roots(folder: Path) -> list[Path]:
    """The blobs beside a snapshot of the hub's own cache, to which its files link."""
    return [folder.parent.parent / _HUB_BLOBS] if folder.parent.name == _HUB_SNAPSHOTS else []
