"""The engine on an NVIDIA GPU: the same promises, on real kernels."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Delta, Engine, FinishReason, InstanceState, Message, ModelSpec, Request, SamplingParams, Settings
from engine.environment import CheckStatus, collect_report
from engine.telemetry import Nvml
from tests.fakes import wait_until

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


def test_nvml_and_environment_see_the_card(tmp_path: Path) -> None:
    nvml = Nvml()
    try:
        inventory = nvml.read()
        assert inventory.reason is None
        gpu = inventory.gpus[0]
        assert gpu.memory_total_bytes
        assert gpu.power_w
        report = collect_report(tmp_path, nvml)
        checks = {check.id: check for check in report.checks}
        assert checks["gpu.driver"].status is CheckStatus.PASS, checks["gpu.driver"]
    finally:
        nvml.close()
