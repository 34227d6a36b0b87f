from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator, Sequence

import pytest
import torch

from engine.errors import DeadlineError, InstanceNotReadyError, QueueFullError, WorkerDiedError
from engine.inference import attention
from engine.inference import embedder as embedder_module
from engine.inference.embedder import Embedder
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest, Pooling
from engine.inference.forward import Part
from engine.inference.request import Finished, FinishReason, Timing
from engine.models.loader import LoadedModel
from engine.scheduling.window import Window
from tests.fakes import FakeClock

_WINDOW = Window(max_texts=8, max_wait_s=0.01, max_tokens=64, max_tokens_beside=64)


class _Bench:
    """An embedder of the tiny model, on a clock that the test moves."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.clock = FakeClock()
        self.finished: list[Finished] = []
        self.num_wakes = 0
        self.embedder = Embedder(loaded, _WINDOW, self.clock, lambda _, end: self.finished.append(end), self._wake)

    def _wake(self) -> None:
        self.num_wakes += 1

    def submit(self, *token_ids: list[int], pooling: Pooling = Pooling.MEAN, timeout_s: float = 60.0) -> EmbeddingJob:
        request = EmbeddingRequest("tiny", tuple(tuple(ids) for ids in token_ids), pooling)
        now_s = self.clock.monotonic()
        job = EmbeddingJob(request, [*token_ids], now_s + timeout_s, Timing(self.clock.wall(), now_s))
        self.embedder.submit(job)
        return job

    def step(self, *, is_generating: bool = False) -> float | None:
        return self.embedder.step(is_generating=is_generating)

    def run(self, job: EmbeddingJob) -> tuple[array[float], ...]:
        self.clock.advance(2 * _WINDOW.max_wait_s)
        for _ in range(100):
            if job.outcome.done():
                break
            self.step()
        return job.outcome.result(0).vectors


@pytest.fixture
def bench(tiny: LoadedModel) -> Iterator[_Bench]:
    with attention.used(tiny.model, attention.NAME):
        yield _Bench(tiny)


def _ids(length: int, seed: int) -> list[int]:
    return random.Random(seed).choices(range(256), k=length)


@torch.inference_mode()
def _reference(loaded: LoadedModel, ids: list[int], pooling: Pooling) -> torch.Tensor:
    """By transformers alone, with its own attention."""
    with attention.used(loaded.model, attention.REFERENCE):
        hidden: torch.Tensor = loaded.model.base_model(
            input_ids=torch.tensor([ids]), use_cache=False
        ).last_hidden_state[0]
    return hidden.mean(dim=0) if pooling is Pooling.MEAN else hidden[-1]


def _cosine(vector: array[float], other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(torch.tensor(vector.tolist()), other, dim=0))


@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("length", [1, 7, 64, 200])
def test_vectors_are_those_of_transformers(tiny: LoadedModel, bench: _Bench, pooling: Pooling, length: int) -> None:
    ids = _ids(length, seed=length)
    (vector,) = bench.run(bench.submit(ids, pooling=pooling))
    assert math.isclose(math.hypot(*vector), 1.0, abs_tol=1e-5)
    assert _cosine(vector, _reference(tiny, ids, pooling)) > 0.99999


def test_a_text_has_the_same_vector_alone_and_in_a_batch(bench: _Bench) -> None:
    texts = [_ids(length, seed=length) for length in (3, 20, 90, 1, 14, 64)]
    alone = [bench.run(bench.submit(ids))[0] for ids in texts]
    together = bench.run(bench.submit(*texts))
    for one, other in zip(alone, together, strict=True):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-6


def test_texts_of_several_requests_share_a_batch(bench: _Bench) -> None:
    jobs = [bench.submit(_ids(8, seed)) for seed in range(8)]
    assert bench.num_wakes == 8
    assert bench.step() == 0.0
    assert all(job.outcome.done() for job in jobs)
    assert [end.reason for end in bench.finished] == [FinishReason.STOP] * 8
    assert bench.embedder.requests() == []


def test_one_text_waits_for_the_window(bench: _Bench) -> None:
    job = bench.submit(_ids(8, 0))
    wait_s = bench.step()
    assert wait_s is not None
    assert 0 < wait_s <= _WINDOW.max_wait_s
    assert bench.embedder.requests() == [job]
    bench.clock.advance(wait_s + 1e-6)
    assert bench.step() == 0.0
    assert job.outcome.result(0).num_tokens == 8
    assert bench.step() is None


def test_generation_gets_as_much_time_as_a_batch_took(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = bench.embedder._forward.hidden

    def slow(parts: Sequence[Part]) -> torch.Tensor:
        bench.clock.advance(0.3)
        return hidden(parts)

    monkeypatch.setattr(bench.embedder._forward, "hidden", slow)
    first, second = bench.submit(_ids(64, 0)), bench.submit(_ids(64, 1))
    assert bench.step(is_generating=True) == 0.0
    assert first.outcome.done()
    wait_s = bench.step(is_generating=True)
    assert wait_s is not None
    assert math.isclose(wait_s, 0.3)
    assert not second.outcome.done()
    bench.clock.advance(wait_s + 1e-6)
    bench.step(is_generating=True)
    assert second.outcome.done()


def test_the_pause_ends_with_generation(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.submit(_ids(64, 0))
    second = bench.submit(_ids(64, 1))
    bench.step(is_generating=True)
    monkeypatch.setattr(bench.embedder, "_not_before_s", math.inf)
    bench.step(is_generating=False)
    assert second.outcome.done()


def test_a_closed_job_is_not_run(bench: _Bench) -> None:
    job, other = bench.submit(_ids(100, 0), _ids(5, 1)), bench.submit(_ids(5, 2))
    bench.step()  # the first piece of the first text
    assert bench.embedder.cancel(job.request_id)
    assert not bench.embedder.cancel("embd-unknown")
    bench.clock.advance(1)
    bench.step()
    with pytest.raises(InstanceNotReadyError, match="cancelled by the operator"):
        job.outcome.result(0)
    assert other.outcome.result(0).num_tokens == 5
    assert [end.reason for end in bench.finished] == [FinishReason.CANCELLED, FinishReason.STOP]


def test_a_late_job_ends(bench: _Bench) -> None:
    job = bench.submit(_ids(5, 0), timeout_s=2)
    bench.clock.advance(2)
    assert bench.step() is None
    with pytest.raises(DeadlineError, match="within 2 s"):
        job.outcome.result(0)


def test_the_queue_is_bounded(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder_module, "MAX_WAITING_TEXTS", 3)
    bench.submit([1], [2])
    with pytest.raises(QueueFullError, match="2 texts wait to be embedded and 2 more came, at most 3 may"):
        bench.submit([3], [4])
    assert len(bench.embedder.requests()) == 1


def test_vectors_that_are_not_finite_are_an_error(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.embedder._forward, "hidden", lambda _: torch.full((1, 4), torch.nan))
    job = bench.submit([1])
    bench.clock.advance(1)
    bench.step()
    with pytest.raises(WorkerDiedError, match="not finite"):
        job.outcome.result(0)
    assert bench.finished[0].reason is FinishReason.ERROR


@pytest.mark.parametrize(
    ("error", "raised", "reason"),
    [
        (None, InstanceNotReadyError, FinishReason.CANCELLED),
        ("the worker died", WorkerDiedError, FinishReason.ERROR),
    ],
)
def test_closing_ends_what_waits(
    bench: _Bench, error: str | None, raised: type[Exception], reason: FinishReason
) -> None:
    job = bench.submit(_ids(5, 0))
    bench.embedder.close(error)
    with pytest.raises(raised):
        job.outcome.result(0)
    assert [end.reason for end in bench.finished] == [reason]
    with pytest.raises(InstanceNotReadyError, match="has stopped"):
        bench.submit([1])


@pytest.mark.model
@pytest.mark.parametrize("pooling", Pooling)
def test_vectors_of_a_real_model_are_those_of_transformers(sample_loaded: LoadedModel, pooling: Pooling) -> None:
    texts = ["The capital of France is Paris.", "x", "A longer text, " * 10]
    token_ids = [sample_loaded.tokenizer(text)["input_ids"] for text in texts]
    with attention.used(sample_loaded.model, attention.NAME):
        bench = _Bench(sample_loaded)
        vectors = bench.run(bench.submit(*token_ids, pooling=pooling))
    for ids, vector in zip(token_ids, vectors, strict=True):
        assert _cosine(vector, _reference(sample_loaded, ids, pooling)) > 0.9999
