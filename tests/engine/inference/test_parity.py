from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface

from engine.errors import WeightsError
from engine.inference import attention
from engine.inference.parity import check_parity
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import ModelSpec
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


def test_another_attention_is_refused(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose layers scale differently under our attention than under their own."""
    loaded = load()
    real = attention.attend

    def scaled(module: torch.nn.Module, *tensors: Any, **options: Any) -> Any:
        return real(module, *tensors, **{**options, "scaling": options["scaling"] * 1.5})

    AttentionInterface.register(attention.NAME, scaled)
    try:
        with pytest.raises(WeightsError, match=r"LlamaForCausalLM cannot be served .* differ from the reference by"):
            check_parity(loaded)
    finally:
        AttentionInterface.register(attention.NAME, real)


def test_a_model_that_ignores_the_cache_is_refused(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with attention of its own forgets the first chunk."""
    loaded = load()
    monkeypatch.setattr(loaded.model, "set_attn_implementation", lambda _name: None)
    with pytest.raises(WeightsError, match="cannot be served"):
        check_parity(loaded)


def test_an_error_inside_becomes_a_sentence(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load()

    def capped(*_: Any, **__: Any) -> Any:
        raise NotImplementedError("attention with a soft cap or sinks is not supported")

    AttentionInterface.register(attention.NAME, capped)
    try:
        with pytest.raises(WeightsError, match="cannot be served by this engine: attention with a soft cap"):
            check_parity(loaded)
    finally:
        AttentionInterface.register(attention.NAME, attention.attend)


def test_logits_that_are_not_numbers_are_refused(load: Loader) -> None:
    loaded = load()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(WeightsError, match="differ from the reference by nan"):
        check_parity(replace(loaded))
