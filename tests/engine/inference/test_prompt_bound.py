from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from engine.inference.prompt_bound import TokenBound, least_tokens
from engine.models.loader import LoadedModel
from tests.fakes import byte_tokenizer

_TEXTS = [
    "the cat sat on the mat, and the mat sat on the cat; " * 20,
    " " * 300 + "=" * 200 + "\n" * 60,
    "我们在数据中心运行模型。" * 40,
    "naïve café Ångström 각하 ǖ " * 30,
    "0123456789 " * 40,
]
# Qwen's, in short: letters, single digits, other characters, white space.
_SPLIT = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")


@cache
def _trained(kind: str) -> Any:
    """A byte-level tokenizer with long tokens: as GPT-2's, as Qwen's, or as Qwen's that knows few bytes."""
    backend = Tokenizer(models.BPE())
    alphabet = pre_tokenizers.ByteLevel.alphabet() if kind != "few bytes" else []
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind != "gpt2":
        backend.normalizer = normalizers.NFC()
        steps: Any = [
            pre_tokenizers.Split(_SPLIT, "isolated"),
            pre_tokenizers.Digits(),
            pre_tokenizers.ByteLevel(use_regex=False),
        ]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    trainer: Any = trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(_TEXTS, trainer)
    backend.add_special_tokens([AddedToken("<|a long mark of a turn|>", special=True)])
    backend.add_tokens([AddedToken("café au lait", normalized=True)])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def _num_tokens(tokenizer: Any, text: str) -> int:
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


_PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["<|a long mark of a turn|>", "café au lait", "e\u0301", ">\u0338", "\u1fef", "\u1100\u1161"]),
    st.builds(
        lambda text, times: text * times, st.sampled_from([" ", "=", "\n", "the cat", "我们", "7"]), st.integers(1, 99)
    ),
)


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "few bytes"])
@given(pieces=st.lists(_PIECES, max_size=12))
def test_no_text_has_fewer_tokens(kind: str, pieces: list[str]) -> None:
    text = "".join(pieces)
    assert least_tokens(_trained(kind), text) <= _num_tokens(_trained(kind), text)


@pytest.mark.parametrize("kind", ["gpt2", "qwen"])
@given(data=st.data())
def test_nor_has_a_text_of_the_longest_tokens(kind: str, data: st.DataObject) -> None:
    """What fills a context with the most characters is not refused."""
    tokenizer = _trained(kind)
    ids = sorted(range(len(tokenizer)), key=lambda index: -len(tokenizer.decode([index])))
    text = tokenizer.decode(data.draw(st.lists(st.sampled_from(ids[:60]), max_size=40)))
    assert least_tokens(tokenizer, text) <= _num_tokens(tokenizer, text)


@given(text=st.text(max_size=300))
def test_a_token_a_byte_is_counted_exactly(text: str) -> None:
    assert least_tokens(byte_tokenizer(), text) <= len(text.encode())
    if "<|im" not in text:
        assert least_tokens(_ONE_A_BYTE, text) == _num_tokens(_ONE_A_BYTE, text)


def _without_marks() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


_ONE_A_BYTE = _without_marks()


def _broken(name: str) -> Any:
    """A byte-level tokenizer, but for one part that may drop characters."""
    tokenizer = _without_marks()
    backend = tokenizer._tokenizer
    if name == "normalizer":
        backend.normalizer = normalizers.Strip()
    elif name == "no pre-tokenizer":
        backend.pre_tokenizer = None
    elif name == "pre-tokenizer":
        steps: Any = [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel()]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif name == "split":
        steps = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif name == "twice":
        steps = [pre_tokenizers.ByteLevel(), pre_tokenizers.ByteLevel()]
        backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    elif name == "added":
        backend.add_special_tokens([AddedToken("<end>", rstrip=True, special=True)])
    elif name == "model":
        backend.model = models.WordLevel({"a": 0, "?": 1}, unk_token="?")
    return tokenizer


@pytest.mark.parametrize(
    "name", ["normalizer", "no pre-tokenizer", "pre-tokenizer", "split", "twice", "added", "model"]
)
def test_nothing_is_said_of_a_tokenizer_that_may_drop_characters(name: str) -> None:
    assert TokenBound(_broken(name)).least_tokens("a" * 100) == 0


def test_nothing_is_said_of_a_tokenizer_in_python() -> None:
    assert TokenBound(object()).least_tokens("a" * 100) == 0


@pytest.mark.model
@given(pieces=st.lists(_PIECES, max_size=12))
def test_the_sample_too(sample_loaded: LoadedModel, pieces: list[str]) -> None:
    text = "".join(pieces)
    assert least_tokens(sample_loaded.tokenizer, text) <= _num_tokens(sample_loaded.tokenizer, text)


@pytest.mark.model
def test_a_long_text_is_known_to_be_long(sample_loaded: LoadedModel) -> None:
    """A tenth of its tokens at least, in plain English and in what an attacker writes."""
    for text in ("The quick brown fox jumps over the lazy dog. " * 20_000, "x" * 1_000_000):
        assert least_tokens(sample_loaded.tokenizer, text) > _num_tokens(sample_loaded.tokenizer, text) / 10
