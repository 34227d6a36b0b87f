"""Models of a few bytes that the tests publish at their hub, and what they load them with."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from engine.weights.download import Progress, RetryPolicy

REPO = "acme/tiny"
FAST = RetryPolicy(pause_s=0.02, longest_pause_s=0.1)


def safetensors(seed: int = 0, num_bytes: int = 4000) -> bytes:
    """A valid file with one tensor of random bytes."""
    header = json.dumps({"a": {"dtype": "U8", "shape": [num_bytes], "data_offsets": [0, num_bytes]}}).encode()
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(num_bytes)


def model_files(seed: int = 0, num_bytes: int = 4000) -> dict[str, bytes]:
    """What a repository holds: a model in two shards, and much that nobody needs."""
    return {
        ".gitattributes": b"*.safetensors filter=lfs",
        "README.md": b"# Tiny",
        "config.json": json.dumps({"model_type": "llama", "seed": seed}).encode(),
        "generation_config.json": b"{}",
        "model-00001-of-00002.safetensors": safetensors(seed, num_bytes),
        "model-00002-of-00002.safetensors": safetensors(seed + 1000, num_bytes),
        "model.safetensors.index.json": json.dumps(
            {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
        ).encode(),
        "modeling_tiny.py": b"import os",
        "onnx/model.onnx": b"onnx",
        "pytorch_model.bin": b"PK pickled",
        "tokenizer.json": b'{"version": "1.0"}',
        "tokenizer_config.json": b'{"chat_template": "x"}',
    }


WANTED = {
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def _gguf(data: bytes) -> bytes:
    """A GGUF file of version 3 with one tensor of 8-bit integers."""
    info = struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, len(data), _I8, 0)
    head = b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info
    return head + bytes(-len(head) % 32) + data


_I8 = 24
GGUF = _gguf(random.Random(7).randbytes(3000))


def convert(file: Path, folder: Path, on_progress: Progress) -> None:
    """Stands for unpacking: the file's bytes as the weights."""
    on_progress("unpacking GGUF, once", 0.5)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(file.read_bytes()[4:])


def ignore(_stage: str, _fraction: float | None) -> None:
    """Progress that nobody looks at."""


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
