"""FlashAttention over one pool and CUDA graphs: what a real GPU computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from collections.abc import Sequence as Row
from pathlib import Path

import pytest
import torch

from engine.inference.parity import choose_forward, forward_of
from engine.inference.pooled_forward import Pooled
from engine.inference.prefixes import PrefixLimits
from engine.inference.request import Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.inference.text import Detokenizer
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import ModelSpec
from engine.scheduling.admission import Limits
from engine.weights.store import plain_weights
from tests import vision_models
from tests.fakes import FakeClock, save_tiny_llama

pytestmark = pytest.mark.gpu

_LIMITS = Limits(16, 1_000, 512, 100_000)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("llama")
    save_tiny_llama(
        folder, hidden_size=256, intermediate_size=512, num_hidden_layers=3, head_dim=64, max_position_embeddings=4_096
    )
    return _load(folder, folder)


def _load(folder: Path, weights: Path) -> LoadedModel:
    spec = ModelSpec(str(folder), device="cuda", dtype="bfloat16")
    return choose_forward(load_model(spec, plain_weights(weights / "weights"), lambda _stage, _fraction: None))


def _run(loaded: LoadedModel, prompts: Row[list[int]], num_tokens: int, **options: object) -> list[list[int]]:
    limits = options.pop("limits", _LIMITS)
    prefixes = options.pop("prefixes", None)
    runner = options.pop("runner", None) or Runner(loaded, limits, FakeClock(), lambda *_: None, prefixes)  # type: ignore[arg-type]
    sequences = []
    for index, prompt in enumerate(prompts):
        params = SamplingParams(**{"temperature": 0.0, "max_tokens": num_tokens, "seed": index, **options})  # type: ignore[arg-type]
        request = Request("m", (Message("user", "-"),), params)
        detokenizer = Detokenizer(loaded.tokenizer._tokenizer, ())
        sequences.append(Sequence(request, prompt, num_tokens, float("inf"), Timing(0.0, 0.0), detokenizer))
        runner.submit(sequences[-1])
    for _ in range(5_000):
        if not runner.step():
            break
    assert [sequence.stream.finished.error for sequence in sequences if sequence.stream.finished] == [None] * len(
        prompts
    )
    return [sequence.token_ids[sequence.num_prompt_tokens :] for sequence in sequences]


def _prompts(lengths: Row[int]) -> list[list[int]]:
    draw = torch.Generator().manual_seed(1)
    return [torch.randint(5, 250, (length,), generator=draw).tolist() for length in lengths]


@torch.inference_mode()
def _assert_greedy(loaded: LoadedModel, prompts: Row[list[int]], answers: Row[list[int]]) -> None:
    """Each token is the likeliest after those before it to the same weights in float32, or as good as: what the model
    itself says in bfloat16 is off by `noise`, and so may we be, for either of two tokens."""
    judge = copy.deepcopy(loaded.model).float()
    for model in (judge, loaded.model):
        model.set_attn_implementation("sdpa")
    noise, regret = 0.0, 0.0
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([prompt + answer], device="cuda")
        logits, rounded = (
            model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
            for model in (judge, loaded.model)
        )
        chosen = logits.gather(1, ids[0, len(prompt) :, None])[:, 0]
        noise = max(noise, float((logits - rounded).abs().max()))
        regret = max(regret, float((logits.amax(-1) - chosen).max()))
    assert noise < float(logits.std())
    assert regret <= 2 * noise


@pytest.fixture
def make_runner(llama: LoadedModel) -> Callable[..., Runner]:
    def make(limits: Limits = _LIMITS, prefixes: PrefixLimits | None = None) -> Runner:
        runner = Runner(llama, limits, FakeClock(), lambda *_: None, prefixes)
        assert isinstance(runner._compute, Pooled)
        assert "CUDA graphs" in runner._compute.name
        assert runner._compute.why_no_graphs is None
        return runner

    return make


def test_answers_are_the_models_own(llama: LoadedModel, make_runner: Callable[..., Runner]) -> None:
    """Prompts shorter and longer than a chunk, joining and leaving."""
    prompts = _prompts((3, 40, 600, 17, 1_300, 5))
    runner = make_runner()
    answers = _run(llama, prompts, 40, runner=runner)
    _assert_greedy(llama, prompts, answers)
    assert runner._compute._pool.regions.num_free == runner._compute.held_tokens - 1  # type: ignore[attr-defined]


def test_a_pool_that_grows_and_is_compacted(llama: LoadedModel, make_runner: Callable[..., Runner]) -> None:
    """More requests than places, of many lengths, so that regions of all sizes come and go."""
    prompts = _prompts([200 + 37 * index % 900 for index in range(60)])
    runner = make_runner()
    answers = _run(llama, prompts, 300, runner=runner)
    assert runner._compute._pool.version > 0  # type: ignore[attr-defined]
    _assert_greedy(llama, prompts, answers)


def test_a_beginning_that_was_kept(llama: LoadedModel, make_runner: Callable[..., Runner]) -> None:
    (begin,) = _prompts((256,))
    prompts = [[*begin, *end] for end in _prompts((30, 50))]
    runner = make_runner(prefixes=PrefixLimits(10_000, 64, across_keys=True))
    answers = [_run(llama, [prompt], 20, runner=runner)[0] for prompt in prompts]
    stats = runner.stats().prefixes
    assert stats is not None
    assert stats.num_found_tokens == 256
    _assert_greedy(llama, prompts, answers)


def test_a_seed_draws_the_same_alone_and_in_a_batch(llama: LoadedModel, make_runner: Callable[..., Runner]) -> None:
    """But where a draw lies within a rounding of a border: most of the first tokens, then."""
    options = {"temperature": 0.8, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1, "top_logprobs": 2}
    prompts = _prompts([30] * 8)
    together = _run(llama, prompts, 8, runner=make_runner(), **options)
    again = _run(llama, prompts, 8, runner=make_runner(), **options)
    assert together == again
    alone = [_run(llama, prompts[:1], 8, runner=make_runner(), **options)[0][:3]]
    assert alone == [together[0][:3]]


@pytest.mark.parametrize("architecture", ["glm4v", "qwen3", "llava"])
def test_images(tmp_path: Path, architecture: str) -> None:
    """The same answers as without a pool, whose images are compared with the model's own when it is loaded."""
    from engine import Settings
    from engine.backend import prepare_sequence
    from engine.inference.image_parity import serve_images
    from engine.inference.images import ImagePart

    save = {
        "glm4v": vision_models.save_tiny_glm4v,
        "qwen3": lambda folder: vision_models.save_tiny_qwen(folder, "3"),
        "llava": vision_models.save_tiny_llava,
    }[architecture]
    loaded = serve_images(_load(save(tmp_path / "model"), tmp_path))
    assert loaded.why_no_images is None
    answers = []
    for is_pooled in (True, False):
        runner = Runner(loaded, _LIMITS, FakeClock(), lambda *_: None)
        assert isinstance(runner._compute, Pooled)
        if not is_pooled:
            runner._compute = forward_of(loaded)
        sequences = []
        for seed in range(3):
            content = (ImagePart(vision_models.picture_bytes(seed)), "what is it")
            request = Request("m", (Message("user", content),), SamplingParams(temperature=0.0, max_tokens=12))
            sequences.append(prepare_sequence(loaded, _LIMITS, request, Timing(0.0, 0.0), Settings(home=tmp_path)))
            runner.submit(sequences[-1])
        while runner.step():
            pass
        answers.append([sequence.token_ids[sequence.num_prompt_tokens :] for sequence in sequences])
    assert [answer[:4] for answer in answers[0]] == [answer[:4] for answer in answers[1]]


def test_tokens_that_see_each_other_both_ways_are_not_pooled(tmp_path: Path) -> None:
    from engine.inference.image_parity import serve_images

    loaded = serve_images(_load(vision_models.save_tiny_gemma(tmp_path / "model"), tmp_path))
    assert loaded.why_no_images is None
    assert not isinstance(Runner(loaded, _LIMITS, FakeClock(), lambda *_: None)._compute, Pooled)
