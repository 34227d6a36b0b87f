"""The engine on an NVIDIA GPU: the same promises, on real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Delta, Engine, FinishReason, InstanceState, Message, ModelSpec, Request, SamplingParams, Settings
from engine.environment import CheckContext, CheckStatus, collect_report
from engine.environment.profile import choose_profile, find_profile
from engine.models.schemes import BITSANDBYTES, default_quantization
from engine.models.spec import Quantization, Scheme
from engine.telemetry import Nvml
from engine.weights.store import plain_weights
from tests.fakes import save_tiny_llama, wait_until

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_concurrent_requests_are_answered(tiny_folder: Path, tmp_path: Path, dtype: str) -> None:
    engine = Engine(Settings(home=tmp_path), lambda _record: None)
    try:
        engine.load(ModelSpec(str(tiny_folder), "tiny", "cuda", dtype))  # type: ignore[arg-type]
        wait_until(lambda: engine.instances()[0].state in (InstanceState.READY, InstanceState.FAILED), 120)
        (info,) = engine.instances()
        assert info.state is InstanceState.READY, info.reason
        assert info.model is not None
        assert info.model.device == "cuda:0"
        sampling = SamplingParams(temperature=0.8, top_p=0.9, seed=3, max_tokens=24, repetition_penalty=1.1)
        streams = [
            engine.stream(Request("tiny", (Message("user", f"number {index}"),), sampling)) for index in range(8)
        ]
        for stream in streams:
            tokens = [token for event in stream if isinstance(event, Delta) for token in event.tokens]
            assert tokens
            assert stream.finished is not None
            assert stream.finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
        assert engine.requests() == ()
    finally:
        engine.close()


def test_greedy_answer_is_that_of_generate(tiny_folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    engine = Engine(Settings(home=tmp_path), lambda _record: None)
    try:
        engine.load(ModelSpec(str(tiny_folder), "tiny", "cuda", "float32"))
        wait_until(lambda: engine.instances()[0].state is InstanceState.READY, 120)
        stream = engine.stream(
            Request("tiny", (Message("user", "hello"),), SamplingParams(temperature=0.0, max_tokens=32))
        )
        ours = [token.token_id for event in stream if isinstance(event, Delta) for token in event.tokens]
    finally:
        engine.close()
    tokenizer = AutoTokenizer.from_pretrained(str(tiny_folder))
    model = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32).to("cuda")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").to("cuda")
    output = model.generate(**ids, max_new_tokens=32, do_sample=False)
    assert ours == output[0, ids["input_ids"].shape[1] :].tolist()[: len(ours)]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_attention_agrees_with_the_models_own(
    tiny_folder: Path, tmp_path: Path, dtype: str, attention: str
) -> None:
    from engine.inference.parity import check_parity
    from engine.models.loader import load_model

    spec = ModelSpec(str(tiny_folder), device="cuda", dtype=dtype, attention=attention)  # type: ignore[arg-type]
    loaded = load_model(spec, plain_weights(tmp_path), lambda *_: None)
    assert loaded.info.attention == attention
    check_parity(loaded)


@pytest.mark.parametrize("scheme", BITSANDBYTES)
def test_bitsandbytes_is_saved_and_comes_back_with_the_same_bits(tmp_path: Path, scheme: Scheme) -> None:
    pytest.importorskip("bitsandbytes")
    import torch

    from engine.inference.parity import check_parity
    from engine.models.loader import LoadedModel, load_model
    from engine.models.quantization import ability_of, weights_bytes
    from engine.models.saved import save_quantized

    def load(source: Path, quantization: Quantization | None = None) -> LoadedModel:
        spec = ModelSpec(str(source), device="cuda", dtype="bfloat16", quantization=quantization)
        return load_model(spec, plain_weights(tmp_path / "weights"), lambda *_: None)

    def logits(loaded: LoadedModel) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = loaded.model(input_ids=torch.arange(1, 40, device="cuda")[None]).logits
        return found

    folder = save_tiny_llama(tmp_path / "tiny", intermediate_size=128)  # 4-bit products warn below whole groups of 64
    chosen = default_quantization(scheme, ability_of(torch.device("cuda:0")))
    plain, loaded = load(folder), load(folder, chosen)
    check_parity(loaded)
    distance = float((logits(loaded) - logits(plain)).norm() / logits(plain).norm())
    assert 0 < distance < (0.6 if scheme is Scheme.BNB_NF4 else 0.35)  # random weights amplify
    assert (loaded.info.quantization, loaded.info.num_parameters) == (chosen, plain.info.num_parameters)
    assert loaded.info.weights_bytes == weights_bytes(loaded.model) < plain.info.weights_bytes
    again = load(save_quantized(loaded, tmp_path / "saved"))
    assert torch.equal(logits(again), logits(loaded))
    assert (again.info.quantization, again.info.weights_bytes) == (chosen, loaded.info.weights_bytes)
    check_parity(again)


def test_nvml_and_environment_see_the_card(tmp_path: Path) -> None:
    nvml = Nvml()
    try:
        inventory = nvml.read()
        assert inventory.reason is None
        gpu = inventory.gpus[0]
        assert gpu.memory_total_bytes
        assert gpu.power_w
        name, profile = find_profile(choose_profile(inventory), tmp_path)
        report = collect_report(CheckContext(profile, tmp_path, nvml), name, ["gpu"])
        assert profile.gpu.is_required
        assert report.counts()[CheckStatus.ERROR] == 0, report.checks
        assert report.counts()[CheckStatus.PASS] > 0, report.checks
    finally:
        nvml.close()
