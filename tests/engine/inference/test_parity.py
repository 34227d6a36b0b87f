from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from engine.errors import WeightsError
from engine.inference import attention
from engine.inference.forward import Packed
from engine.inference.parity import check_parity, choose_forward, forward_of
from engine.inference.separate_forward import OwnCache, Separate
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import ModelSpec, Passes
from engine.weights.store import plain_weights

Loader = Callable[..., LoadedModel]


@pytest.fixture
def load(tiny_folder: Path, tmp_path: Path) -> Loader:
    def load_one(**fields: Any) -> LoadedModel:
        spec = ModelSpec(str(tiny_folder), **{"device": "cpu", **fields})
        return load_model(spec, plain_weights(tmp_path), lambda _stage, _fraction: None)

    return load_one


def test_a_llama_agrees(load: Loader) -> None:
    assert check_parity(load(dtype="float32")) < 1e-5


def test_eager_attention_agrees_too(load: Loader) -> None:
    fused, eager = load(dtype="float32"), load(dtype="float32", attention="eager")
    assert (fused.info.attention, eager.info.attention) == ("sdpa", "eager")
    assert eager.cache_shape.kernel == "eager"
    assert 0 < check_parity(eager) < 1e-5  # another kernel than the reference's rounds otherwise


def test_in_bfloat16_within_its_rounding(load: Loader) -> None:
    assert check_parity(load(dtype="bfloat16")) < 5e-2


def test_the_model_keeps_its_attention(load: Loader) -> None:
    loaded = load()
    before = loaded.model.config._attn_implementation
    check_parity(loaded)
    assert loaded.model.config._attn_implementation == before


@contextmanager
def _attending(attend: Callable[..., Any]) -> Iterator[None]:
    AttentionInterface.register(attention.NAME, attend)
    try:
        yield
    finally:
        AttentionInterface.register(attention.NAME, attention.attend)


def _scaled(module: torch.nn.Module, *tensors: Any, **options: Any) -> Any:
    return attention.attend(module, *tensors, **{**options, "scaling": options["scaling"] * 1.5})


def _capped(*_: Any, **__: Any) -> Any:
    raise NotImplementedError("attention with a twist is not supported.")


@pytest.mark.parametrize(
    ("attend", "why"), [(_scaled, "differ from the reference by"), (_capped, "attention with a twist is not supported")]
)
def test_what_cannot_be_packed_is_run_one_by_one(load: Loader, attend: Callable[..., Any], why: str) -> None:
    with _attending(attend):
        loaded = choose_forward(load())
        with pytest.raises(WeightsError, match=f"LlamaForCausalLM cannot be served by this engine: .*{why}"):
            check_parity(replace(loaded, passes=Passes.PACKED))
        assert check_parity(loaded) < 1e-5
    assert loaded.passes is Passes.SEPARATE
    assert isinstance(forward_of(loaded), Separate)
    (note,) = loaded.info.notes
    assert note.startswith("Its requests are run one by one, not together: ")
    assert why in note


def test_what_can_be_packed_is(load: Loader) -> None:
    loaded = load()
    assert choose_forward(loaded) is loaded
    assert isinstance(forward_of(loaded), Packed)


def test_chunks_of_attention_are_not_packed_however_well_a_few_tokens_agree(load: Loader) -> None:
    loaded = load()
    loaded.model.config.layer_types = ["chunked_attention", "full_attention"]
    loaded.model.config.attention_chunk_size = 8_192
    assert check_parity(loaded) < 1e-5
    assert "it has layers of chunked_attention" in choose_forward(loaded).info.notes[0]


def test_a_model_that_keeps_requests_apart_in_no_way_is_refused(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose states are its own and not of a request: what runs beside it is seen."""
    loaded = load()
    shared: dict[str, Any] = {}

    def forget(_: OwnCache, output: Any) -> None:
        shared["past_key_values"] = output.past_key_values

    monkeypatch.setattr(OwnCache, "take", forget)
    monkeypatch.setattr(OwnCache, "arguments", shared)
    with _attending(_capped), pytest.raises(WeightsError, match="cannot be served by this engine: its logits differ"):
        choose_forward(loaded)


def test_logits_that_are_not_numbers_are_refused(load: Loader) -> None:
    loaded = load()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="differ from the reference by nan"):
        choose_forward(loaded)
