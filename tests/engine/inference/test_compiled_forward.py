"""Compiled steps against the model's own forward pass, and against themselves in other company."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from engine.inference import attention
from engine.inference.compiled.fit import why_not_compiled
from engine.inference.compiled.library import library
from engine.inference.compiled_forward import Compiled
from engine.inference.forward import Part
from engine.inference.parity import distance_between, forward_of_requests
from engine.models.loader import LoadedModel, load_model
from engine.models.packing import PackedLinear
from engine.models.spec import ModelSpec, Quantization, Scheme
from engine.scheduling.admission import Limits
from engine.weights.store import plain_weights
from tests.fakes import byte_tokenizer, wait_until

pytestmark = pytest.mark.skipif(library().why_not is not None, reason=str(library().why_not))

_SIZES = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 257,
}
# Each has something that the one before has not: biases, norms of queries and keys, a window, odd sizes.
_MODELS: dict[str, dict[str, Any]] = {
    "llama": {
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "qwen2": {"num_key_value_heads": 8},
    "qwen3": {"num_attention_heads": 4, "head_dim": 40},
    "mistral": {"sliding_window": 20, "hidden_size": 72, "num_attention_heads": 10},
}
_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=8_000)
_LENGTH = 70
Make = Callable[..., LoadedModel]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make_one(kind: str, **fields: Any) -> LoadedModel:
        folder = tmp_path_factory.mktemp(kind)
        config = CONFIG_MAPPING[kind](**{**_SIZES, **_MODELS[kind]})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config).float()
            for parameter in model.parameters():
                if parameter.dim() == 1:  # norms and biases, all alike else
                    torch.nn.init.uniform_(parameter.data, 0.5, 1.5)
            model.save_pretrained(folder)
        byte_tokenizer().save_pretrained(folder)
        spec = ModelSpec(str(folder), device="cpu", **fields)
        return load_model(spec, plain_weights(folder / "weights"), lambda _stage, _fraction: None)

    return make_one


def _ids(seed: int, count: int = _LENGTH) -> list[int]:
    return random.Random(seed).choices(range(258), k=count)


def _own_logits(loaded: LoadedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode(), attention.used(loaded.model, attention.REFERENCE):
        logits: torch.Tensor = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits


@torch.inference_mode()
def _run(compiled: Compiled, ids: list[int], cuts: list[int]) -> torch.Tensor:
    """Logits of all of `ids`, run in pieces that end at `cuts`, in a cache that grows with them."""
    cache, found = compiled.new_cache(1, 1), []
    for start, stop in zip([0, *cuts], [*cuts, len(ids)], strict=True):
        cache.reserve(stop, stop)
        found.append(compiled.logits([Part(cache, ids[start:stop], start, num_logits=stop - start)]))
    return torch.cat(found)


@pytest.mark.parametrize("kind", _MODELS)
@pytest.mark.parametrize(
    ("fields", "tolerance"),
    [
        ({}, 1e-5),
        ({"dtype": "bfloat16"}, 3e-2),
        ({"quantization": Quantization(Scheme.INT8_WEIGHT)}, 1e-3),
        ({"dtype": "bfloat16", "quantization": Quantization(Scheme.INT8_WEIGHT)}, 3e-2),
    ],
)
def test_logits_are_those_of_the_model(make: Make, kind: str, fields: dict[str, Any], tolerance: float) -> None:
    loaded, ids = make(kind, **fields), _ids(1)
    if why := why_not_compiled(loaded.model, loaded.cache_shape):
        assert (kind, why) == ("mistral", "model.layers.0.self_attn.q_proj has 72 inputs, no multiple of 16")
        return
    compiled = forward_of_requests(loaded, _LIMITS)
    assert isinstance(compiled, Compiled)
    ours = _run(compiled, ids, [7, 8, 40])
    assert distance_between(ours, _own_logits(loaded, ids)) < tolerance


@pytest.mark.parametrize("fields", [{}, {"quantization": Quantization(Scheme.INT8_WEIGHT)}])
def test_a_token_has_the_same_bits_in_any_company(make: Make, fields: dict[str, Any]) -> None:
    """However a prompt is cut, whatever runs beside it, and on any number of threads."""
    loaded = make("qwen3", **fields)
    compiled, ids = Compiled(loaded), _ids(2)
    alone = _run(compiled, ids, list(range(1, _LENGTH)))

    @settings(max_examples=25, deadline=None)
    @given(st.sets(st.integers(1, _LENGTH - 1)), st.integers(0, 20), st.integers(0, 20))
    def check(cuts: set[int], num_before: int, num_after: int) -> None:
        cache, found = compiled.new_cache(_LENGTH, _LENGTH), []
        before, after = compiled.new_cache(64, 64), compiled.new_cache(64, 64)
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), _LENGTH], strict=True):
            parts = [Part(cache, ids[start:stop], start, num_logits=stop - start)]
            if num_before:
                parts.insert(0, Part(before, _ids(start, num_before), 0, num_logits=0))
            if num_after:
                parts.append(Part(after, _ids(stop, num_after), 0))
            with torch.inference_mode():
                logits = compiled.logits(parts)
            found.append(logits[: stop - start])
        assert torch.equal(torch.cat(found), alone)

    check()
    num_threads = torch.get_num_threads()
    for other in (1, 3, 8):
        torch.set_num_threads(other)
        try:
            assert torch.equal(_run(Compiled(loaded), ids, [30]), alone)
        finally:
            torch.set_num_threads(num_threads)


def test_weights_are_read_where_they_are(make: Make) -> None:
    """So linear layers are not packed for oneDNN, and a tied head is no copy of the embeddings."""
    loaded = make("llama")
    assert not any(isinstance(module, PackedLinear) for module in loaded.model.modules())
    model = loaded.model
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert loaded.info.weights_bytes == 4 * loaded.info.num_parameters


def test_no_logits_where_none_are_wanted(make: Make) -> None:
    compiled = Compiled(make("llama"))
    cache = compiled.new_cache(8, 8)
    with torch.inference_mode():
        assert compiled.logits([Part(cache, [1, 2, 3], 0, num_logits=0)]).shape == (0, 258)
    assert cache.length == 3


@pytest.mark.parametrize("fields", [{}, {"quantization": Quantization(Scheme.INT8_WEIGHT)}])
def test_what_is_no_number_stays_none(make: Make, fields: dict[str, Any]) -> None:
    """Rounding to integers would make one of it, and nonsense an answer."""
    loaded = make("llama", **fields)
    loaded.model.model.layers[1].input_layernorm.weight.data[3] = float("nan")
    assert _run(Compiled(loaded), [1, 2, 3], []).isnan().all()


def _num_step_threads() -> int:
    count = 0
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # one that has just ended
            count += (task / "comm").read_text() == "console-step\n"
    return count


def test_its_threads_end_with_it(make: Make) -> None:
    loaded = make("llama")
    gc.collect()  # those of other tests
    before = _num_step_threads()
    compiled = [Compiled(loaded) for _ in range(3)]
    added = 3 * (torch.get_num_threads() - 1)
    wait_until(lambda: _num_step_threads() == before + added)  # each gives itself its name
    compiled.clear()
    gc.collect()
    wait_until(lambda: _num_step_threads() == before)


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        ("llama", {"dtype": "float16"}, "it computes in float16"),
        ("llama", {"attention": "eager"}, "the eager attention kernel is asked for"),
        (
            "llama",
            {"quantization": Quantization(Scheme.INT8_DYNAMIC)},
            "model.layers.0.self_attn.q_proj is a Int8Product",
        ),
    ],
)
def test_what_it_cannot_compute_is_said(make: Make, kind: str, fields: dict[str, Any], why: str) -> None:
    loaded = make(kind, **fields)
    assert why_not_compiled(loaded.model, loaded.cache_shape) == why
    assert not isinstance(forward_of_requests(loaded, _LIMITS), Compiled)


def test_one_whose_logits_differ_is_not_used(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """As would that of an architecture which has more than it knows."""
    loaded = make("llama")
    loaded.model.config.rms_norm_eps = 0.5  # what compiled code reads; the model's layers have theirs
    with caplog.at_level("INFO"):
        chosen = forward_of_requests(replace(loaded, name="odd"), _LIMITS)
    assert "; not compiled, as its logits differ from the reference by" in chosen.name
    assert "odd: its forward passes are not compiled" in caplog.text


def test_heads_of_an_odd_width_are_left_alone() -> None:
    config = CONFIG_MAPPING["llama"](**{**_SIZES, "head_dim": 20})
    shape = attention.CacheShape(3, 2, 20, torch.float32, torch.device("cpu"))
    why = why_not_compiled(AutoModelForCausalLM.from_config(config), shape)
    assert why == "its heads are 20 wide, no multiple of 8"


def test_an_unknown_architecture_is_left_alone(tmp_path: Path) -> None:
    config = CONFIG_MAPPING["gpt2"](n_embd=32, n_layer=1, n_head=2, vocab_size=258)
    model = AutoModelForCausalLM.from_config(config)
    shape = attention.CacheShape(1, 2, 16, torch.float32, torch.device("cpu"))
    assert why_not_compiled(model, shape) == "GPT2LMHeadModel has layers that it does not know"
