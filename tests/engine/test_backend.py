from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.backend import LocalBackend, choose_limits, prepare_embedding, prepare_sequence, run_warm_up
from engine.config import Settings
from engine.errors import ContextLengthError, InvalidRequestError, WeightsError, WorkerDiedError
from engine.inference.embedding import EmbeddingRequest
from engine.inference.request import WARM_UP, Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.models.loader import LoadedModel
from engine.models.spec import ModelSpec
from engine.scheduling.admission import Limits
from tests.fakes import TINY_CONTEXT, FakeClock

_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=100_000)
_TIMING = Timing(1_700_000_000.0, 100.0)
# What the chat template puts around one message of a user, in tokens.
_NUM_FRAME_TOKENS = len("user\n") + len("\n") + len("assistant\n") + 3


def _prepare(loaded: LoadedModel, prompt: str = "Hi", limits: Limits = _LIMITS, **fields: Any) -> Sequence:
    timeout_s = fields.pop("timeout_s", None)
    request = Request("tiny", (Message("user", prompt),), SamplingParams(**fields), timeout_s)
    return prepare_sequence(loaded, limits, request, _TIMING, Settings(default_max_tokens=50, request_timeout_s=30))


@pytest.fixture
def threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_defaults_of_a_request_come_from_the_settings(tiny: LoadedModel) -> None:
    sequence = _prepare(tiny)
    assert (sequence.max_tokens, sequence.deadline_s) == (50, 130.0)
    assert sequence.num_prompt_tokens == 2 + _NUM_FRAME_TOKENS


def test_what_the_request_names_wins(tiny: LoadedModel) -> None:
    sequence = _prepare(tiny, max_tokens=7, timeout_s=2.5)
    assert (sequence.max_tokens, sequence.deadline_s) == (7, 102.5)


def test_the_whole_context_can_be_used(tiny: LoadedModel) -> None:
    room = TINY_CONTEXT - 2 - _NUM_FRAME_TOKENS
    assert _prepare(tiny, max_tokens=room).max_tokens == room
    with pytest.raises(ContextLengthError, match=rf"max_tokens is {room + 1:,}, and .* {room:,} fit: lower it"):
        _prepare(tiny, max_tokens=room + 1)


def test_a_default_answer_shrinks_to_the_room_that_is_left(tiny: LoadedModel) -> None:
    prompt = "x" * (TINY_CONTEXT - _NUM_FRAME_TOKENS - 3)
    assert _prepare(tiny, prompt).max_tokens == 3


@pytest.mark.parametrize("num_extra", [0, 1])
def test_a_prompt_that_leaves_no_room(tiny: LoadedModel, num_extra: int) -> None:
    num_tokens = TINY_CONTEXT + num_extra
    with pytest.raises(ContextLengthError, match=rf"has {num_tokens:,} tokens and the context of tiny") as refusal:
        _prepare(tiny, "x" * (num_tokens - _NUM_FRAME_TOKENS))
    assert refusal.value.param == "messages"


@pytest.mark.parametrize("prompt", [None, "x" * 100_000])
def test_a_prompt_far_too_long_is_refused_before_it_is_cut(tiny: LoadedModel, prompt: str | None) -> None:
    request = Request("tiny", (Message("user", "x" * 100_000),), prompt=prompt)
    with pytest.raises(ContextLengthError, match=r"has at least 100,0\d\d tokens .* holds 2,048: shorten") as refusal:
        prepare_sequence(tiny, _LIMITS, request, _TIMING, Settings())
    assert refusal.value.param == ("messages" if prompt is None else "prompt")


def test_a_text_far_too_long_to_embed_is_refused_before_it_is_cut(tiny: LoadedModel) -> None:
    request = EmbeddingRequest("tiny", ("fine", "x" * 100_000))
    with pytest.raises(ContextLengthError, match=r"text 1 has at least 100,000 tokens, and tiny embeds 2,048"):
        prepare_embedding(tiny, _LIMITS, request, _TIMING, Settings())


def test_the_cache_may_hold_less_than_the_context(tiny: LoadedModel) -> None:
    limits = replace(_LIMITS, cache_tokens=100)
    assert _prepare(tiny, "Hi", limits).max_tokens == 50
    with pytest.raises(ContextLengthError, match="holds 100: shorten"):
        _prepare(tiny, "x" * 100, limits)


def test_parameters_are_checked_against_the_model(tiny: LoadedModel) -> None:
    with pytest.raises(InvalidRequestError, match="from 0 to 257"):
        _prepare(tiny, logit_bias={258: 1.0})


def test_limits_on_a_cpu(tiny: LoadedModel) -> None:
    limits = choose_limits(tiny, Settings(kv_cache_gib=1 / 1024, max_running=5, max_waiting=6))
    assert limits == Limits(5, 6, 256, (1 << 20) // tiny.info.cache_bytes_per_token, 262_144, None)
    assert choose_limits(tiny, Settings(kv_cache_gib=1, chunk_tokens=64)).chunk_tokens == 64


def test_a_queue_has_a_deadline_only_where_requests_wait(tiny: LoadedModel) -> None:
    waits = choose_limits(tiny, Settings(kv_cache_gib=1, queue_policy="wait", queue_timeout_s=7, max_waiting_tokens=9))
    assert (waits.queue_timeout_s, waits.max_waiting_tokens) == (7.0, 9)
    assert choose_limits(tiny, Settings(kv_cache_gib=1, queue_timeout_s=7)).queue_timeout_s is None


def test_a_model_may_have_its_own_batch_size(tiny: LoadedModel) -> None:
    limits = choose_limits(replace(tiny, max_running=2), Settings(kv_cache_gib=1, max_running=5))
    assert limits.max_running == 2


def test_a_context_length_asked_for_bounds_requests(tiny: LoadedModel) -> None:
    short = replace(tiny, info=replace(tiny.info, context_length=64))
    assert _prepare(short).max_tokens == 64 - 2 - _NUM_FRAME_TOKENS
    with pytest.raises(ContextLengthError, match="the context of tiny holds 64: shorten"):
        _prepare(short, "x" * 64)


def test_too_little_memory_for_a_cache(tiny: LoadedModel) -> None:
    with pytest.raises(WeightsError, match=r"at least 256 are needed: raise CONSOLE_KV_CACHE_GIB or free memory"):
        choose_limits(tiny, Settings(kv_cache_gib=1e-5))


def test_warm_up_generates(tiny: LoadedModel) -> None:
    ended: list[tuple[Sequence, Finished]] = []
    runner = Runner(tiny, _LIMITS, FakeClock(), lambda *both: ended.append(both))
    run_warm_up(tiny, runner, FakeClock())
    ((sequence, finished),) = ended
    assert sequence.request.source == WARM_UP
    assert finished.reason in (FinishReason.STOP, FinishReason.LENGTH)
    assert runner.requests() == []


def test_a_warm_up_without_a_token_is_an_error(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = Runner(tiny, _LIMITS, FakeClock(), lambda *_: None)
    real = runner._compute.logits

    def poisoned(parts: Any, chosen: Any = None) -> Any:
        return real(parts, chosen) * float("nan")

    monkeypatch.setattr(runner._compute, "logits", poisoned)
    with pytest.raises(WorkerDiedError, match="gave no token: the model produced logits that are not finite"):
        run_warm_up(tiny, runner, FakeClock())


def test_load_start_and_answer(tiny_folder: Path, tmp_path: Path) -> None:
    backend = LocalBackend(Settings(home=tmp_path, kv_cache_gib=0.1), FakeClock())
    stages: list[str] = []
    loaded = backend.load(ModelSpec(str(tiny_folder), device="cpu"), lambda stage, _fraction: stages.append(stage))
    assert stages[-1] == "comparing with the reference"
    runner = backend.start(loaded, lambda *_: None)
    backend.warm_up(loaded, runner)
    request = Request("tiny", (Message("user", "Hi"),), SamplingParams(max_tokens=3, logit_bias={257: -100.0}))
    sequence = backend.prepare(loaded, runner, request, Timing(0.0, FakeClock().monotonic()))
    runner.submit(sequence)
    while runner.step():
        pass
    assert sequence.stream.finished is not None
    assert sequence.stream.finished.num_output_tokens == 3


def test_a_model_that_computes_something_else_is_refused(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_loaded: LoadedModel) -> LoadedModel:
        raise WeightsError("X cannot be served by this engine")

    monkeypatch.setattr("engine.backend.choose_forward", refuse)
    backend = LocalBackend(Settings(home=tmp_path), FakeClock())
    with pytest.raises(WeightsError, match="cannot be served"):
        backend.load(ModelSpec(str(tiny_folder), device="cpu"), lambda _stage, _fraction: None)


def test_threads_are_those_of_the_settings(tmp_path: Path, threads: int) -> None:
    LocalBackend(Settings(home=tmp_path), FakeClock())
    assert torch.get_num_threads() == threads
    LocalBackend(Settings(home=tmp_path, threads=1), FakeClock())
    assert torch.get_num_threads() == 1
