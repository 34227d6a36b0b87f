"""Whole answers of tiny models of many architectures, several requests at once, against transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from engine.backend import choose_limits, choose_prefix_limits, prepare_sequence
from engine.config import Settings
from engine.errors import WeightsError
from engine.inference import attention
from engine.inference.embedder import Embedder
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.forward import headless
from engine.inference.parity import choose_forward
from engine.inference.prefixes import PrefixLimits
from engine.inference.request import FinishReason, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.models.describe import context_length
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import ModelSpec, Passes
from engine.scheduling.admission import Limits
from engine.scheduling.window import Window
from engine.weights.store import plain_weights
from tests.fakes import FakeClock, byte_tokenizer

_SIZES = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "sliding_window": 40,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": 257,
}
_LATENT = {
    "head_dim": 8,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 12,
    "first_k_dense_replace": 2,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "layer_types": ["linear_attention", "full_attention"],
}
_STATE = {"state_size": 8, "conv_kernel": 4, "expand": 2, "chunk_size": 8, "n_groups": 1}
_MAMBA_OF_FALCON = {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8}
_MODELS: dict[str, tuple[Passes, dict[str, Any]]] = {
    "gemma2": (Passes.PACKED, {"attn_logit_softcapping": 2.0}),
    "gpt_oss": (Passes.PACKED, {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "deepseek_v3": (Passes.PACKED, _LATENT),
    "qwen3_next": (Passes.SEPARATE, _LINEAR),
    "falcon_h1": (Passes.SEPARATE, {**_MAMBA_OF_FALCON, "mamba_chunk_size": 8, "mamba_n_groups": 1}),
    "lfm2": (Passes.SEPARATE, {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "mamba2": (Passes.SEPARATE, {**_STATE, "num_heads": 8, "head_dim": 16}),
    "mamba": (Passes.WHOLE_PROMPTS, _STATE),
    "bloom": (Passes.SEPARATE, {"n_layer": 2, "n_head": 4}),
    "llama4_text": (
        Passes.SEPARATE,
        {
            "attention_chunk_size": 24,
            "num_local_experts": 2,
            "intermediate_size_mlp": 96,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
}
_SEPARATE = [kind for kind, (passes, _) in _MODELS.items() if passes is not Passes.PACKED]
_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=4_000)
_PROMPTS = (
    "A",
    "The quick brown fox",
    "The quick brown fox jumps over the lazy dog, and then it sleeps for a while. Ah",
)
_NUM_TOKENS = 12

Load = Callable[[str], LoadedModel]


def _config(kind: str) -> Any:
    known = CONFIG_MAPPING[kind]().to_dict()
    sizes = {key: value for key, value in _SIZES.items() if key in known}
    return CONFIG_MAPPING[kind](**{**sizes, **_MODELS[kind][1]})


def _save(kind: str, folder: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(_config(kind)).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.normal_()
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    loaded: dict[str, LoadedModel] = {}

    def load_one(kind: str) -> LoadedModel:
        if kind not in loaded:
            folder = tmp_path_factory.mktemp(kind)
            _save(kind, folder / "model")
            spec = ModelSpec(str(folder / "model"), device="cpu", dtype="float32")
            found = load_model(spec, plain_weights(folder / "weights"), lambda _stage, _fraction: None)
            loaded[kind] = choose_forward(found)
        return loaded[kind]

    return load_one


class _Bench:
    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded
        self.clock = FakeClock()
        self.runner = Runner(loaded, _LIMITS, self.clock, lambda _sequence, _finished: None)

    def submit(self, prompt: str, **fields: Any) -> Sequence:
        bias = {257: -100.0}
        sampling = SamplingParams(**{"temperature": 0.0, "max_tokens": _NUM_TOKENS, "logit_bias": bias, **fields})
        request = Request(self.loaded.name, (), sampling, prompt=prompt)
        timing = Timing(self.clock.wall(), self.clock.monotonic())
        sequence = prepare_sequence(self.loaded, _LIMITS, request, timing, Settings())
        self.runner.submit(sequence)
        return sequence

    def run(self) -> None:
        while self.runner.step():
            pass


def _answer(sequence: Sequence) -> list[int]:
    return sequence.token_ids[sequence.num_prompt_tokens :]


def _generate(loaded: LoadedModel, sequence: Sequence) -> list[int]:
    prompt = torch.tensor([sequence.token_ids[: sequence.num_prompt_tokens]])
    with attention.used(loaded.model, attention.REFERENCE):
        output = loaded.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=_NUM_TOKENS,
            do_sample=False,
            suppress_tokens=[257],
        )
    found: list[int] = output[0, prompt.shape[1] :].tolist()
    return found


@pytest.mark.parametrize("kind", _MODELS)
def test_greedy_equals_generate_in_a_batch_while_another_is_cancelled(load: Load, kind: str) -> None:
    loaded = load(kind)
    assert loaded.passes is _MODELS[kind][0]
    bench = _Bench(loaded)
    first = bench.submit(_PROMPTS[0])
    bench.runner.step()
    leaves = bench.submit(_PROMPTS[2] * 2)
    others = [bench.submit(prompt) for prompt in _PROMPTS[1:]]
    bench.runner.step()
    assert bench.runner.cancel(leaves.request_id)
    bench.run()
    assert leaves.stream.finished is not None
    assert (leaves.stream.finished.reason, leaves._cache) == (FinishReason.CANCELLED, None)
    for sequence in (first, *others):
        assert _answer(sequence) == _generate(loaded, sequence)


@pytest.mark.parametrize("kind", ["gemma2", "qwen3_next", "mamba"])
def test_same_seed_same_bits_alone_and_in_a_batch(load: Load, kind: str) -> None:
    def ask(prompts: tuple[str, ...]) -> list[tuple[list[int], list[Any]]]:
        bench = _Bench(load(kind))
        fields = {"temperature": 1.0, "seed": 5, "top_logprobs": 2}
        sequences = [bench.submit(prompt, **fields) for prompt in prompts]
        bench.run()
        return [(_answer(sequence), sequence.stream.poll()[:-1]) for sequence in sequences]

    alone = ask(_PROMPTS[2:])
    assert ask((_PROMPTS[1], _PROMPTS[2], _PROMPTS[0]))[1] == alone[0]


@pytest.mark.parametrize("kind", _SEPARATE)
def test_embeddings_are_the_means_of_the_models_own_states(load: Load, kind: str) -> None:
    loaded = load(kind)
    clock = FakeClock()
    ids = [list(prompt.encode()) for prompt in _PROMPTS]
    timing = Timing(clock.wall(), clock.monotonic())
    job = EmbeddingJob(EmbeddingRequest("m", tuple(map(tuple, ids))), ids, float("inf"), timing)
    embedder = Embedder(loaded, Window(8, 0.0, 32, 32), clock, lambda _job, _end: None, lambda: None)
    embedder.submit(job)
    while embedder.step(is_generating=False) is not None:
        clock.advance(1.0)
    with attention.used(loaded.model, attention.REFERENCE), torch.inference_mode():
        for tokens, vector in zip(ids, job.outcome.result(0).vectors, strict=True):
            own = headless(loaded.model)(input_ids=torch.tensor([tokens]), use_cache=False).last_hidden_state[0]
            expected = torch.nn.functional.normalize(own.mean(dim=0), dim=0)
            torch.testing.assert_close(torch.tensor(vector), expected, rtol=1e-3, atol=1e-4)


def test_the_card_says_what_is_different(load: Load) -> None:
    assert "has soft caps" in load("gemma2").info.notes[-1]
    assert "has sinks" in load("gpt_oss").info.notes[-1]
    assert load("gpt_oss").info.attention == "eager"
    assert load("deepseek_v3").info.cache_bytes_per_token == 2 * 4 * (24 + 12) * 4
    context, separate, states = load("mamba").info.notes
    assert "8,192 tokens" in context
    assert "layers of linear_attention" in separate
    assert "run whole" in separate
    conv, recurrent = 96 * 4 * 4, 96 * 8 * 4
    assert f"holds {2 * (conv + recurrent) / 1e6:.2g} MB of states" in states


def test_limits_of_a_model_without_keys_and_values(load: Load) -> None:
    loaded = load("mamba")
    settings = Settings(kv_cache_gib=0.001, max_running=3, prefix_cache_gib=0.001)
    assert loaded.info.cache_bytes_per_token == 0
    limits = choose_limits(loaded, settings)
    assert limits.cache_tokens == 3 * 8_192
    assert choose_prefix_limits(loaded, limits, settings) == PrefixLimits()


def test_a_config_without_a_context_length_takes_what_is_asked() -> None:
    config = _config("mamba")
    assert context_length(config, 100_000) == (100_000, ())
    assert context_length(_config("gemma2"), None) == (512, ())
    with pytest.raises(WeightsError, match="context_length is 0; this model takes 1 or more"):
        context_length(config, 0)
    with pytest.raises(WeightsError, match="context_length is 513; this model takes 1 to 512"):
        context_length(_config("gemma2"), 513)
