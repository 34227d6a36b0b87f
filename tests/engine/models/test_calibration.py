from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.models.calibration import BUNDLED_PROMPTS, Inputs, measure_inputs, smoothing_factors
from engine.models.loader import LoadedModel, load_model
from engine.models.quantization import _quantize_on_gpu
from engine.models.spec import Granularity, ModelSpec, Quantization, Scheme
from engine.weights.store import plain_weights

_NAME = "model.layers.0.mlp.up_proj"


@pytest.fixture(scope="module")
def plain(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny model in bfloat16, whose layers are plain."""
    spec = ModelSpec(str(tiny_folder), device="cpu", dtype="bfloat16")
    return load_model(spec, plain_weights(tmp_path_factory.mktemp("weights")), lambda _stage, _fraction: None)


def test_inputs_of_a_layer_are_measured(plain: LoadedModel) -> None:
    steps: list[float] = []
    found = measure_inputs(plain.model, plain.tokenizer, [_NAME], ["Hello", "What?"], steps.append)
    assert steps == [0.5, 1.0]
    assert found[_NAME].largest.shape == (64,)
    assert float(found[_NAME].largest.min()) > 0
    assert found[_NAME].num_rows > len("Hello") + len("What?")


def test_no_hook_is_left_behind_when_the_callback_raises(plain: LoadedModel) -> None:
    def stop(_fraction: float) -> None:
        raise RuntimeError("unloaded")

    with pytest.raises(RuntimeError, match="unloaded"):
        measure_inputs(plain.model, plain.tokenizer, [_NAME], ["Hello"], stop)
    assert not plain.model.get_submodule(_NAME)._forward_pre_hooks


@pytest.mark.parametrize("granularity", [Granularity.CHANNEL, Granularity.TENSOR])
@pytest.mark.parametrize("is_even", [True, False])
def test_a_gpus_layer_takes_what_was_measured(plain: LoadedModel, granularity: Granularity, is_even: bool) -> None:
    """torchao's tensor multiplies on a CPU too, so that what calibration hands on is tried without a GPU; inputs are as
    models give them, (1, tokens, channels)."""
    inputs = measure_inputs(plain.model, plain.tokenizer, [_NAME], ["Hello", "What?"], lambda _done: None)[_NAME]
    if is_even:
        inputs.sum_of_rows = float(inputs.largest.amax()) * inputs.num_rows
    linear = nn.Linear(64, 96, bias=False, dtype=torch.bfloat16)
    rows = torch.rand(1, 3, 64).to(torch.bfloat16) * inputs.largest.to(torch.bfloat16)
    with torch.no_grad():
        expected = (rows @ linear.weight.T).float()
    _quantize_on_gpu(linear, Quantization(Scheme.INT8_STATIC, granularity), inputs)
    assert type(linear.weight) is not nn.Parameter
    with torch.no_grad():
        assert float((linear(rows).float() - expected).norm() / expected.norm()) < 0.05


def test_the_bundled_prompts_serve_where_there_are_none(plain: LoadedModel) -> None:
    steps: list[float] = []
    measure_inputs(plain.model, plain.tokenizer, [_NAME], ["  "], steps.append)
    assert len(steps) == len(BUNDLED_PROMPTS)


def test_one_outlier_makes_inputs_uneven() -> None:
    inputs = Inputs(torch.zeros(8))
    inputs.add(torch.ones(20, 8))
    assert inputs.is_even
    inputs.add(torch.full((1, 8), 50.0))
    assert not inputs.is_even


def test_smoothing_takes_the_outliers_to_the_weights() -> None:
    weight = torch.ones(4, 3)
    factors = smoothing_factors(torch.tensor([100.0, 1.0, 0.0]), weight)
    torch.testing.assert_close(factors[:2], torch.tensor([10.0, 1.0]))
    assert float(factors[2]) > 0
