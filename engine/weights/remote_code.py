"""Python code that a model brings along, and pickles, which are code too.

transformers calls it remote code: files named by `auto_map` in a model's own config, run with every right of the
console as soon as the model is loaded. It is off, and only a setting turns it on.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.strict_json import parse_json, shorten

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
_KEYS = ("auto_map", "custom_pipelines")
_GENERATE_FOLDER = "custom_generate"
_MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class RemoteCode:
    """Code of a model's own. `config_files` name it; `python_files` lie in the folder (another place may hold more)."""

    folder: Path
    config_files: tuple[str, ...]
    python_files: tuple[str, ...]

    @property
    def warning(self) -> str:
        """What a page shows in red where the code may run."""
        return (
            f"{self.folder.name} runs Python code of its own ({_named(self.python_files or self.config_files)}) with "
            "all rights of this console: its files, its keys, its network."
        )


def find_remote_code(folder: Path) -> RemoteCode | None:
    """The code that `folder` would have transformers run if that were allowed; None when there is none.

    Raises:
        WeightsError: a config cannot be read.
    """
    configs = tuple(name for name in _CONFIGS if _names_code(folder / name))
    if (folder / _GENERATE_FOLDER).is_dir():
        configs = (*configs, _GENERATE_FOLDER)
    if not configs:
        return None
    return RemoteCode(folder, configs, tuple(sorted(path.name for path in folder.glob("*.py"))))


def check_remote_code(folder: Path, allow: bool = False, native_types: Container[str] = ()) -> RemoteCode | None:
    """The code that will run; None when none will.

    `native_types` are the model types for which transformers has code of its own: it runs that one, and the folder's
    lies still, unless `allow`.

    Raises:
        WeightsError: the model needs its own code and `allow` is False, or a config cannot be read.
    """
    found = find_remote_code(folder)
    if found is None or allow:
        return found
    model_type = read_config(folder / "config.json").get("model_type")
    if isinstance(model_type, str) and model_type in native_types:
        return None
    raise WeightsError(
        f"{folder} cannot be loaded: it brings Python code of its own ({_named(found.config_files)}), which would run "
        "with all rights of this console and is refused; choose a model that transformers knows, or set "
        "CONSOLE_ALLOW_REMOTE_CODE=true if you have read that code"
    )


def find_pickles(folder: Path) -> tuple[str, ...]:
    """Names of pickled files in the folder: never loaded, and told, because another program might."""
    return tuple(sorted(path.name for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES))


def read_config(file: Path) -> dict[str, Any]:
    """A config's table; empty where there is no such file.

    Raises:
        WeightsError: it is too long, or no JSON table.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES + 1)
        if len(raw) > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MAX_CONFIG_BYTES:,} bytes")
        config = parse_json(raw)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{file} cannot be read as a config: {error}; fetch it again") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{file} cannot be read as a config: it is not a table; fetch it again")
    return config


def _names_code(file: Path) -> bool:
    config = read_config(file)
    return any(config.get(key) for key in _KEYS)


def _named(names: tuple[str, ...]) -> str:
    shown = ", ".join(shorten(name) for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
