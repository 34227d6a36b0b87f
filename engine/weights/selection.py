"""Which files of a repository are needed: pure decisions over a listing.

Only files at the top are taken: subfolders hold other formats and other programs' parts (`onnx/`, `original/`). Never
taken are pickles, which can run code when opened, and Python files, which are code.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatch

from engine.errors import WeightsError
from engine.weights.repository import RemoteFile

# Small files by name. Tokenizers have many formats; `*.sig` is a signature over the model.
_COMPANIONS = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece*.model",
    "*.tiktoken",
    "chat_template*",
    "additional_chat_templates/*.jinja",
    "*processor_config.json",
    "quantiz*_config.json",
    "model.safetensors.index.json",
    "*.sig",
)
_SHARD = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_SPLIT_GGUF = re.compile(r".*-\d{5}-of-\d{5}\.gguf")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_CODE = ("*.py", *_PICKLES)


def choose_files(repo_id: str, files: Sequence[RemoteFile], gguf_name: str | None = None) -> tuple[RemoteFile, ...]:
    """The files to fetch: config, tokenizer and safetensors; or one GGUF file where asked, or where that is all.

    Raises:
        WeightsError: there is no such file, a choice is to be made, or only formats that are refused.
    """
    top = {file.path: file for file in files if "/" not in file.path}
    if gguf_name is not None:
        return (_named_gguf(repo_id, top, gguf_name),)
    weights = [file for path, file in top.items() if path.endswith(".safetensors")]
    if not weights:
        return (_only_gguf(repo_id, top),)
    if "config.json" not in top:
        raise WeightsError(f"{repo_id} is not a model that can be loaded: it has no config.json")
    # Some repositories hold the same weights twice, under another program's name (`consolidated.safetensors`).
    shards = [file for file in weights if _SHARD.fullmatch(file.path)] or weights
    return (*(file for file in files if _is_companion(file.path)), *shards)


def is_gguf(files: Sequence[RemoteFile]) -> bool:
    """Is the choice one GGUF file, which is converted before it is loaded."""
    return len(files) == 1 and files[0].path.endswith(".gguf")


def _is_companion(path: str) -> bool:
    if path.count("/") > path.startswith("additional_chat_templates/") or any(fnmatch(path, name) for name in _CODE):
        return False
    return any(fnmatch(path, name) for name in _COMPANIONS)


def _named_gguf(repo_id: str, top: dict[str, RemoteFile], name: str) -> RemoteFile:
    if name not in top:
        known = ", ".join(sorted(path for path in top if path.endswith(".gguf"))) or "none"
        raise WeightsError(f"{repo_id} has no file {name!r}; its .gguf files: {known}")
    if _SPLIT_GGUF.fullmatch(name):
        raise WeightsError(f"{repo_id}: {name} is one part of a split GGUF file, and only whole ones are read")
    return top[name]


def _only_gguf(repo_id: str, top: dict[str, RemoteFile]) -> RemoteFile:
    names = sorted(path for path in top if path.endswith(".gguf"))
    if len(names) == 1:
        return _named_gguf(repo_id, top, names[0])
    if names:
        raise WeightsError(
            f"{repo_id} holds {len(names)} .gguf files: name one of them, as in {repo_id}:{names[0]} "
            f"(there are {', '.join(names)})"
        )
    pickles = sorted(path for path in top if any(fnmatch(path, pattern) for pattern in _PICKLES))
    if pickles:
        raise WeightsError(
            f"{repo_id} holds only pickled weights ({pickles[0]}), which can run code when opened and are refused: "
            "choose a repository or revision with .safetensors files"
        )
    raise WeightsError(f"{repo_id} holds neither .safetensors nor .gguf files: it is not a model that can be loaded")
