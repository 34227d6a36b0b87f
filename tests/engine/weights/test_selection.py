from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.repository import RemoteFile
from engine.weights.selection import choose_files, is_gguf
from tests.engine.weights.hub_models import REPO, WANTED, model_files


def _files(*paths: str) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(path, 1, None, None) for path in paths)


def _choose(*paths: str, gguf_name: str | None = None) -> set[str]:
    return {file.path for file in choose_files(REPO, _files(*paths), gguf_name)}


def test_what_a_model_needs() -> None:
    assert _choose(*model_files()) == WANTED


def test_images_templates_and_signatures() -> None:
    wanted = {
        "config.json",
        "model.safetensors",
        "model.sig",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "processor_config.json",
        "chat_template.jinja",
        "chat_template.json",
        "additional_chat_templates/tools.jinja",
        "tokenizer.model",
        "merges.txt",
        "vocab.json",
    }
    assert _choose(*wanted, "original/tokenizer.model", "sub/config.json", "flax_model.msgpack") == wanted


def test_code_and_pickles_are_never_taken() -> None:
    taken = _choose(
        "config.json", "model.safetensors", "chat_template.py", "tokenizer.py", "chat_template.bin", "tokenizer.pkl"
    )
    assert taken == {"config.json", "model.safetensors"}


def test_the_same_weights_under_another_name_are_left() -> None:
    paths = ("config.json", "model-00001-of-00001.safetensors", "consolidated.safetensors", "model.fp16.safetensors")
    assert _choose(*paths) == {"config.json", "model-00001-of-00001.safetensors"}
    assert _choose("config.json", "weights.safetensors") == {"config.json", "weights.safetensors"}


def test_gguf_where_there_is_nothing_else_or_it_is_named() -> None:
    assert _choose("README.md", "m.gguf", "config.json") == {"m.gguf"}
    assert _choose("config.json", "model.safetensors", "m.gguf") == {"config.json", "model.safetensors"}
    assert _choose("config.json", "model.safetensors", "m.gguf", gguf_name="m.gguf") == {"m.gguf"}
    assert is_gguf(_files("m.gguf"))
    assert not is_gguf(_files("model.safetensors"))


@pytest.mark.parametrize(
    ("paths", "gguf_name", "words"),
    [
        (("model.safetensors",), None, r"it has no config\.json"),
        (
            ("config.json", "pytorch_model.bin"),
            None,
            r"only pickled weights \(pytorch_model\.bin\)",
        ),
        (("README.md",), None, r"holds neither \.safetensors nor \.gguf files"),
        ((), None, r"holds neither \.safetensors nor \.gguf files"),
        (("a.gguf", "b.gguf"), None, r"holds 2 \.gguf files: name one of them, as in acme/tiny:a\.gguf"),
        (("a.gguf",), "b.gguf", r"has no file 'b\.gguf'; its \.gguf files: a\.gguf"),
        (("m-00001-of-00002.gguf",), None, "is one part of a split GGUF file"),
        (("sub/m.gguf",), None, "holds neither"),
    ],
)
def test_what_is_refused(paths: tuple[str, ...], gguf_name: str | None, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        _choose(*paths, gguf_name=gguf_name)


@given(st.lists(st.from_regex(r"[a-z_]{1,9}(/[a-z]{1,4})?\.(py|bin|pt|pkl|json|safetensors|txt)", fullmatch=True)))
def test_no_code_whatever_the_names(paths: list[str]) -> None:
    chosen = _choose("config.json", "model.safetensors", *paths)
    assert not any(path.endswith((".py", ".bin", ".pt", ".pkl")) for path in chosen)
