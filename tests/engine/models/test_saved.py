"""Quantized while loading, saved, and loaded again: the tiny model in every scheme, the sample in each default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.errors import ConsoleError, WeightsError
from engine.inference.parity import check_parity
from engine.models.loader import LoadedModel, load_model
from engine.models.quantization import ability_of
from engine.models.saved import KEY, read_saved, save_quantized
from engine.models.schemes import Ability, default_quantization, offered_schemes
from engine.models.spec import Granularity, ModelSpec, Quantization, Scheme
from engine.weights.store import plain_weights
from tests.conftest import weights_cache_folder
from tests.fakes import save_tiny_llama

_ON_CPU = [scheme for scheme in offered_schemes(Ability()) if scheme not in (Scheme.FP8_WEIGHT, Scheme.FP8_DYNAMIC)]
_CHOICES = [
    *(default_quantization(scheme, ability_of(torch.device("cpu"))) for scheme in _ON_CPU),
    Quantization(Scheme.INT8_WEIGHT, Granularity.TENSOR),
    Quantization(Scheme.INT8_WEIGHT, Granularity.GROUP, 32, is_symmetric=False),
    Quantization(Scheme.INT8_WEIGHT, is_symmetric=False, keep=("lm_head", "down_proj")),
    Quantization(Scheme.INT8_DYNAMIC, Granularity.TENSOR),
    Quantization(Scheme.INT8_STATIC, prompts=("Hello there", "What is this?")),
    Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 32),
]

Load = Callable[..., LoadedModel]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load_one(source: Path | str, quantization: Quantization | None = None, **fields: Any) -> LoadedModel:
        cache = plain_weights(fields.pop("cache", tmp_path / "weights"))
        spec = ModelSpec(str(source), **{"device": "cpu", "quantization": quantization, **fields})
        return load_model(spec, cache, fields.pop("on_progress", lambda _stage, _fraction: None))

    return load_one


@torch.inference_mode()
def _logits(loaded: LoadedModel) -> torch.Tensor:
    ids = torch.arange(1, 40)[None]
    logits: torch.Tensor = loaded.model(input_ids=ids).logits
    return logits


def _edit_about(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[KEY] |= fields
    file.write_text(json.dumps(config))


@pytest.fixture
def saved(load: Load, tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny model, saved in 4 bits."""
    return save_quantized(load(tiny_folder, Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP)), tmp_path / "int4")


@pytest.mark.parametrize("quantization", _CHOICES, ids=str)
def test_it_computes_nearly_the_same_and_comes_back_with_the_same_bits(
    load: Load, tiny_folder: Path, tmp_path: Path, quantization: Quantization
) -> None:
    plain, loaded = load(tiny_folder), load(tiny_folder, quantization)
    check_parity(loaded)
    logits, original = _logits(loaded), _logits(plain)
    distance = float((logits - original).norm() / original.norm())
    assert 0 < distance < (0.6 if quantization.scheme is Scheme.INT4_WEIGHT else 0.35)  # random weights amplify
    assert loaded.info.num_parameters == plain.info.num_parameters
    if quantization.scheme not in (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC):  # 64 inputs fill a block of 512
        assert loaded.info.weights_bytes < plain.info.weights_bytes
    again = load(save_quantized(loaded, tmp_path / "saved"))
    assert torch.equal(_logits(again), logits)
    assert again.info.quantization == quantization
    assert again.info.weights_bytes == loaded.info.weights_bytes
    assert again.info.num_parameters == loaded.info.num_parameters
    assert again.end_ids == loaded.end_ids
    check_parity(again)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_other_dtypes_between_the_layers(load: Load, tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    loaded = load(tiny_folder, Quantization(Scheme.INT8_WEIGHT, keep=()), dtype=dtype)
    again = load(save_quantized(loaded, tmp_path / "saved"))
    assert again.info.dtype == loaded.info.dtype == dtype
    assert torch.equal(_logits(again), _logits(loaded))
    with pytest.raises(WeightsError, match=f"was quantized with {dtype} between its layers: choose dtype auto"):
        load(tmp_path / "saved", dtype="float32")


def test_tied_embeddings_are_held_and_stored_once(load: Load, tmp_path: Path) -> None:
    tied = save_tiny_llama(tmp_path / "tied", tie_word_embeddings=True)
    kept, small = (load(tied, Quantization(Scheme.INT8_WEIGHT, keep=keep)) for keep in (("lm_head",), ()))
    assert kept.info.weights_bytes - small.info.weights_bytes == 258 * 64 * (4 - 1) - 258 * 4
    for loaded in (kept, small):
        again = load(save_quantized(loaded, tmp_path / f"{loaded.info.weights_bytes}"))
        assert torch.equal(_logits(again), _logits(loaded))
        assert again.info.weights_bytes == loaded.info.weights_bytes


def test_kept_layers_stay(load: Load, tiny_folder: Path) -> None:
    loaded = load(tiny_folder, Quantization(Scheme.INT8_WEIGHT, keep=("down_proj", "lm_head")))
    names = {name for name, module in loaded.model.named_modules() if type(module).__name__ == "Linear"}
    assert names == {"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj", "lm_head"}


def test_layers_whose_width_no_group_divides_stay_and_are_told(load: Load, tiny_folder: Path) -> None:
    loaded = load(tiny_folder, Quantization(Scheme.INT8_WEIGHT, Granularity.GROUP, 64))
    assert loaded.info.notes == (
        "2 layers stay in high precision, because their shape does not suit: model.layers.0.mlp.down_proj ...",
    )


def test_a_scheme_that_changes_nothing_is_refused(load: Load, tiny_folder: Path) -> None:
    with pytest.raises(WeightsError, match="leaves every layer of LlamaForCausalLM as it is"):
        load(tiny_folder, Quantization(Scheme.INT8_WEIGHT, Granularity.GROUP, 128))


def test_what_the_device_cannot_do_is_refused_before_anything_is_read(load: Load, tiny_folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"needs a GPU of compute capability 8\.9"):
        load(tiny_folder, Quantization(Scheme.FP8_WEIGHT))


def test_nothing_is_pickled_and_the_config_says_how(saved: Path) -> None:
    assert {path.suffix for path in saved.iterdir()} <= {".json", ".safetensors", ".jinja"}
    about = json.loads((saved / "config.json").read_text())[KEY]
    assert (about["scheme"], about["granularity"], about["is_symmetric"]) == ("int4-weight", "group", True)


def test_a_quantized_folder_takes_no_other_quantization(load: Load, saved: Path) -> None:
    with pytest.raises(WeightsError, match="is quantized already, to int4-weight: load it without one"):
        load(saved, Quantization(Scheme.INT8_WEIGHT))


def test_a_model_that_is_not_quantized_is_not_saved_as_one(tiny: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="tiny is not quantized: load it with a quantization first"):
        save_quantized(tiny, tmp_path / "out")


def test_a_full_disk_is_one_sentence(load: Load, tiny_folder: Path, small_disk: Path) -> None:
    loaded = load(tiny_folder, Quantization(Scheme.INT8_WEIGHT))
    with pytest.raises(WeightsError, match=r"cannot write .*; free space there or choose another folder"):
        save_quantized(loaded, small_disk / "out")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        ({"scheme": "int3"}, "int3"),
        ({"layers": {"lm_head": "os.system"}}, r"layers of kind os\.system"),
        ({"layers": 5}, "does not say how"),
        ({"device": "cuda"}, "quantized for cuda and the device is cpu"),
        ({"capability": "AVX9"}, "laid out for AVX9 and this CPU has"),
        ({"layers": {"no.such.layer": "int4"}}, "quantize the model again"),
        ({"layers": {}}, "lacks or spoils a tensor"),
    ],
)
def test_a_config_that_was_changed(load: Load, saved: Path, fields: dict[str, Any], words: str) -> None:
    _edit_about(saved, **fields)
    with pytest.raises(WeightsError, match=words):
        load(saved)


def test_a_tensor_that_is_missing(load: Load, saved: Path) -> None:
    file = saved / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.packed"]
    save_file(tensors, file)
    with pytest.raises(WeightsError, match="lacks or spoils a tensor"):
        load(saved)


def test_any_other_folder_was_not_saved_by_us(tiny_folder: Path, tmp_path: Path) -> None:
    assert read_saved(tiny_folder) is None
    assert read_saved(tmp_path) is None


def test_quantizing_can_be_cancelled(tiny_folder: Path, tmp_path: Path) -> None:
    class UnloadedError(ConsoleError):
        pass

    def stop(stage: str, fraction: float | None) -> None:
        if stage == "quantizing to int8-weight" and fraction is not None and fraction > 0.3:
            raise UnloadedError("unloaded")

    spec = ModelSpec(str(tiny_folder), device="cpu", quantization=Quantization(Scheme.INT8_WEIGHT))
    with pytest.raises(UnloadedError):
        load_model(spec, plain_weights(tmp_path), stop)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("scheme", _ON_CPU)
def test_the_sample_in_each_scheme(load: Load, tmp_path: Path, scheme: Scheme) -> None:
    quantization = default_quantization(scheme, ability_of(torch.device("cpu")))
    loaded = load("sample", quantization, cache=weights_cache_folder())
    check_parity(loaded)
    has_blocks = scheme in (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC)  # its 576 inputs fill two of 512
    share = 0.75 if has_blocks else 0.6
    assert loaded.info.weights_bytes < share * 2 * loaded.info.num_parameters
    conversation = [{"role": "user", "content": "What is the capital of France?"}]
    text = loaded.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    loaded.model.set_attn_implementation("sdpa")
    answer = loaded.model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in loaded.tokenizer.decode(answer)
    again = load(save_quantized(loaded, tmp_path / "saved"))
    assert torch.equal(_logits(again), _logits(loaded))
