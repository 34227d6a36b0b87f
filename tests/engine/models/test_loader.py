from __future__ import annotations

import json
import re
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from engine.errors import ConsoleError, WeightsError
from engine.inference import attention
from engine.inference.parity import check_parity
from engine.models.gguf import save_unpacked
from engine.models.loader import LoadedModel, choose_placement, load_model
from engine.models.packing import PackedLinear
from engine.models.spec import ModelSpec, Quantization, Scheme
from engine.weights.sources import find_source
from engine.weights.store import WeightsStore, plain_weights
from tests.fakes import TINY_CONTEXT, save_tiny_llama

Loader = Callable[..., LoadedModel]


@pytest.fixture
def cache(tmp_path: Path) -> WeightsStore:
    return plain_weights(tmp_path / "weights")


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def load(cache: WeightsStore) -> Loader:
    def load_one(source: Path, **fields: Any) -> LoadedModel:
        spec = ModelSpec(str(source), **{"device": "cpu", **fields})
        return load_model(spec, cache, lambda _stage, _fraction: None)

    return load_one


def _edit_config(folder: Path, **fields: Any) -> None:
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_info_tells_what_was_loaded(load: Loader, folder: Path) -> None:
    loaded = load(folder)
    info = loaded.info
    assert (loaded.name, info.architecture, info.dtype, info.device) == ("model", "LlamaForCausalLM", "float32", "cpu")
    assert (info.vocab_size, info.context_length) == (258, TINY_CONTEXT)
    assert info.cache_bytes_per_token == 2 * 2 * 2 * 16 * 4
    assert info.weights_bytes == 4 * info.num_parameters
    assert loaded.end_ids == {257}
    assert info.loaded_s > 0
    assert len(info.revision) == 12


def test_the_asked_for_name_is_used(load: Loader, folder: Path) -> None:
    assert load(folder, name="chat").name == "chat"


def test_linears_are_packed_in_float32_only(load: Loader, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And where steps are not compiled, which read them as they are."""
    monkeypatch.setattr("engine.models.loader.why_not_compiled", lambda _model, _shape: "no compiler")
    packed = [module for module in load(folder).model.modules() if isinstance(module, PackedLinear)]
    assert len(packed) == 2 * 7 + 1
    assert not any(isinstance(module, PackedLinear) for module in load(folder, dtype="bfloat16").model.modules())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype_is_honoured(load: Loader, folder: Path, dtype: str) -> None:
    loaded = load(folder, dtype=dtype)
    assert loaded.info.dtype == dtype
    assert loaded.cache_shape.dtype is getattr(torch, dtype)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {getattr(torch, dtype)}


def test_tied_embeddings(load: Loader, tmp_path: Path) -> None:
    loaded = load(save_tiny_llama(tmp_path / "tied", tie_word_embeddings=True))
    with torch.inference_mode():
        logits = loaded.model(input_ids=torch.tensor([[1, 2, 3]])).logits
    assert logits.shape == (1, 3, 258)


def test_progress_is_reported_and_the_terminal_left_alone(
    folder: Path, cache: WeightsStore, capfd: pytest.CaptureFixture[str]
) -> None:
    reports: list[tuple[str, float | None]] = []
    load_model(ModelSpec(str(folder), device="cpu"), cache, lambda *report: reports.append(report))
    fractions = [
        fraction for stage, fraction in reports if stage.startswith("loading weights, ") and fraction is not None
    ]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert capfd.readouterr().err == ""


def test_a_callback_that_raises_ends_the_load(folder: Path, cache: WeightsStore) -> None:
    class UnloadedError(ConsoleError):
        pass

    def stop(_stage: str, fraction: float | None) -> None:
        if fraction is not None and fraction > 0.3:
            raise UnloadedError("unloaded")

    with pytest.raises(UnloadedError):
        load_model(ModelSpec(str(folder), device="cpu"), cache, stop)


def test_truncated_weights(load: Loader, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1_000])
    with pytest.raises(WeightsError, match="cut short, fetch it again"):
        load(folder)


def test_only_pickles(load: Loader, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="only pickled weights"):
        load(folder)


def test_tensors_that_are_missing_are_not_made_up(load: Loader, folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"lacks 1 of the model's tensors \(model\.layers\.1\.mlp\.up_proj\.weight\)"
    ):
        load(folder)


def test_tensors_of_another_shape(load: Loader, folder: Path) -> None:
    _edit_config(folder, intermediate_size=80)
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as a config"),
        ("{", "cannot be read as a config"),
        ("{}", "cannot be loaded"),
        ("[]", "cannot be read as a config"),
        ('{"model_type": "no-such-thing"}', "cannot be loaded"),
    ],
)
def test_a_config_that_is_none(load: Loader, folder: Path, text: str, words: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=words):
        load(folder)


def test_a_tokenizer_that_is_missing(load: Loader, folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(folder)


def test_a_tokenizer_that_is_damaged(load: Loader, folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(folder)


def test_remote_code_is_not_run(load: Loader, folder: Path, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(proof)!r}, 'w')\n")
    auto_map = {"AutoConfig": "modeling_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"}
    _edit_config(folder, auto_map=auto_map, model_type="evil")
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load(folder)
    assert not proof.exists()


@pytest.mark.parametrize("raw", [b"GGUF", b"GGUF" + b"\xff" * 200, b"GGUF\x03\x00\x00\x00" + bytes(100)])
def test_a_gguf_file_of_garbage(load: Loader, tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match=r"m\.gguf cannot be read as a model"):
        load(file)
    assert not list((tmp_path / "weights").glob(".incomplete-*"))


@pytest.mark.model
@pytest.mark.parametrize("share", [0.001, 0.1, 0.9])
def test_a_truncated_gguf_file(load: Loader, tmp_path: Path, share: float) -> None:
    whole = find_source("sample").gguf_file
    assert whole is not None
    file = tmp_path / "cut.gguf"
    with whole.open("rb") as stream:
        file.write_bytes(stream.read(int(whole.stat().st_size * share)))
    with pytest.raises(WeightsError, match=r"cut\.gguf "):
        load(file)
    kept = {path.name for path in (tmp_path / "weights").glob("*") if path.is_dir()}
    assert kept <= {"manifests"}


def test_cuda_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(WeightsError, match="torch sees no GPU here: choose auto or cpu"):
        choose_placement(ModelSpec(device="cuda"))


@pytest.mark.parametrize(
    ("has_gpu", "spec", "placement"),
    [
        (False, ModelSpec(), (torch.device("cpu"), torch.float32)),
        (True, ModelSpec(), (torch.device("cuda:0"), torch.bfloat16)),
        (True, ModelSpec(device="cpu"), (torch.device("cpu"), torch.float32)),
        (True, ModelSpec(device="cuda", dtype="float16"), (torch.device("cuda:0"), torch.float16)),
        (False, ModelSpec(dtype="bfloat16"), (torch.device("cpu"), torch.bfloat16)),
    ],
)
def test_placement(
    monkeypatch: pytest.MonkeyPatch, has_gpu: bool, spec: ModelSpec, placement: tuple[torch.device, torch.dtype]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_placement(spec) == placement


@pytest.mark.model
def test_the_sample_model(sample_loaded: LoadedModel) -> None:
    info = sample_loaded.info
    assert info.architecture == "LlamaForCausalLM"
    assert 130e6 < info.num_parameters < 140e6
    assert info.context_length == 8_192
    assert sample_loaded.tokenizer.chat_template


def test_a_checkpoint_quantized_with_torchao_is_served(tiny_folder: Path, tmp_path: Path) -> None:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TorchAoConfig

    quantized = AutoModelForCausalLM.from_pretrained(
        str(tiny_folder), dtype="float32", quantization_config=TorchAoConfig(Int8WeightOnlyConfig())
    )
    quantized.save_pretrained(tmp_path / "int8")
    AutoTokenizer.from_pretrained(str(tiny_folder)).save_pretrained(tmp_path / "int8")
    spec = ModelSpec(str(tmp_path / "int8"), device="cpu")
    loaded = load_model(spec, plain_weights(tmp_path / "cache"), lambda _stage, _fraction: None)
    weight = loaded.model.model.layers[0].self_attn.q_proj.weight
    assert type(weight.data).__name__ == "Int8Tensor"
    assert check_parity(loaded) < 1e-3


def test_a_disk_that_fills_up_while_unpacking_is_one_sentence(tiny: LoadedModel, small_disk: Path) -> None:
    (small_disk / "work").mkdir()
    unpacked = LlamaForCausalLM(tiny.model.config)
    with pytest.raises(WeightsError, match=r"cannot write the unpacked weights to .*No space left.*; free space there"):
        save_unpacked(unpacked, tiny.tokenizer, small_disk / "work")


@pytest.mark.model
@pytest.mark.slow
def test_unpacking_tells_how_far_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reports: list[tuple[str, float | None]] = []
    load_model(ModelSpec(), plain_weights(tmp_path), lambda stage, fraction: reports.append((stage, fraction)))
    unpacking = [fraction for stage, fraction in reports if stage == "unpacking GGUF, once" and fraction is not None]
    assert len(unpacking) > 100
    assert max(unpacking) == 1.0
    assert "it/s" not in capfd.readouterr().err


def test_the_context_asked_for_is_within_the_models_own(load: Loader, folder: Path) -> None:
    assert load(folder, context_length=64).info.context_length == 64
    for asked in (0, TINY_CONTEXT + 1):
        with pytest.raises(WeightsError, match=rf"context_length is {asked:,}; this model takes 1 to {TINY_CONTEXT:,}"):
            load(folder, context_length=asked)


def test_the_batch_asked_for_is_kept(load: Loader, folder: Path) -> None:
    assert load(folder).max_running is None
    assert load(folder, max_running=3).max_running == 3
    with pytest.raises(WeightsError, match="max_running is 0: at least 1"):
        load(folder, max_running=0)


def test_progress_counts_bytes_and_tells_the_speed(folder: Path, cache: WeightsStore) -> None:
    stages: list[str] = []
    loaded = load_model(ModelSpec(str(folder), device="cpu"), cache, lambda stage, _fraction: stages.append(stage))
    size = (folder / "model.safetensors").stat().st_size
    pattern = rf"loading weights, {size / 1e9:.2f} of {size / 1e9:.2f} GB, \d+\.\d GB/s"
    assert re.fullmatch(pattern, stages[-1])
    assert loaded.info.read_bytes_per_s is not None


def test_a_model_larger_than_free_memory_is_refused_before_it_is_read(
    load: Loader, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.models.failures.free_host_bytes", lambda: 1_000)
    with pytest.raises(WeightsError, match=r"GiB for weights and 0\.0 GiB are free on cpu: unload another model"):
        load(folder)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory. Tried"), MemoryError(), RuntimeError("can't allocate memory: 1")],
)
def test_memory_that_runs_out_is_one_sentence(
    load: Loader, folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def run_out(*_: object) -> None:
        raise error

    monkeypatch.setattr("engine.models.loader._note_size", run_out)
    with pytest.raises(WeightsError, match=r"does not fit into the memory that is free .*: unload another model"):
        load(folder)


def test_a_load_that_fails_gives_back_what_it_took(
    load: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: LoadedModel
) -> None:
    large = save_tiny_llama(tmp_path / "large", hidden_size=512, intermediate_size=8_192)
    models: list[weakref.ref[Any]] = []

    def fail(_job: object, model: Any) -> None:
        models.append(weakref.ref(model))
        raise RuntimeError("no such kernel")

    with torch.inference_mode(), attention.used(tiny.model, attention.REFERENCE):
        before = tiny.model(input_ids=torch.tensor([[1, 2, 3]])).logits
    monkeypatch.setattr("engine.models.loader._note_size", fail)
    with pytest.raises(WeightsError, match="cannot be loaded: no such kernel"):
        load(large)
    assert [model() for model in models] == [None]
    with torch.inference_mode(), attention.used(tiny.model, attention.REFERENCE):
        assert torch.equal(tiny.model(input_ids=torch.tensor([[1, 2, 3]])).logits, before)


def test_an_architecture_that_transformers_does_not_know(load: Loader, folder: Path) -> None:
    _edit_config(folder, model_type="llama99", architectures=["Llama99ForCausalLM"])
    with pytest.raises(WeightsError, match="its architecture is not known to this version of transformers"):
        load(folder)


def test_a_model_that_writes_no_text(load: Loader, folder: Path) -> None:
    _edit_config(folder, model_type="t5")
    with pytest.raises(WeightsError, match="models of type t5 do not write text: choose a causal language model"):
        load(folder)


def test_a_shard_that_is_missing(load: Loader, folder: Path) -> None:
    weight_map = {"lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors"):
        load(folder)


def test_a_tokenizer_without_a_chat_template_is_told(load: Loader, folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    loaded = load(folder)
    assert loaded.info.notes == (
        "The tokenizer has no chat template, so it cannot chat: load an instruct model for that.",
    )


def test_what_is_quantized_already_is_not_quantized_again(load: Loader, folder: Path) -> None:
    _edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(WeightsError, match="is quantized already: load it without a quantization"):
        load(folder, quantization=Quantization(Scheme.INT8_WEIGHT))
