"""Embeddings as they are asked for and given back: plain data, no torch."""

from __future__ import annotations

import uuid
from array import array
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import StrEnum

from engine.errors import InvalidRequestError
from engine.inference.request import Finished, FinishReason, Timing, check_prompt

# OpenAI's bounds of one request and of one text.
MAX_TEXTS = 2048
MAX_REQUEST_TOKENS = 300_000
MAX_TEXT_TOKENS = 8192


class Pooling(StrEnum):
    """How the hidden states of a text's tokens become one vector: their mean, or the last token's."""

    MEAN = "mean"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """Texts, or their token ids, to be embedded by one model.

    Attributes:
        model: an instance's name.
        dimensions: the width that the vectors must have, refused unless it is the model's own.
        timeout_s: seconds from receipt after which the request ends with `deadline`; None for the engine's default.
        source: who asked, kept with the latency record.
        key_id: the API key's id; None where there is none.
        trace_parent: the caller's span as a W3C `traceparent`; None where none was sent.
    """

    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    pooling: Pooling = Pooling.MEAN
    dimensions: int | None = None
    timeout_s: float | None = None
    source: str = "engine"
    request_id: str = field(default_factory=lambda: f"embd-{uuid.uuid4().hex[:16]}")
    key_id: str | None = None
    trace_parent: str | None = None

    def check(self) -> None:
        """Raise InvalidRequestError for a request that no model could answer."""
        if not 1 <= len(self.inputs) <= MAX_TEXTS:
            raise InvalidRequestError(
                f"input has {len(self.inputs)} texts; it must have at least 1 and at most {MAX_TEXTS}", "input"
            )
        for text in self.inputs:
            check_prompt(text, "input")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One float32 vector of length 1 for each input, in their order, and the tokens that were read."""

    vectors: tuple[array[float], ...]
    num_tokens: int


class EmbeddingJob:
    """An embedding request while it is here. Its outcome is a future's, which raises a ConsoleError when the request
    ended without one; `is_cancelled` is the one field that others than the worker set."""

    def __init__(
        self, request: EmbeddingRequest, token_ids: list[list[int]], deadline_s: float, timing: Timing
    ) -> None:
        self.request = request
        self.token_ids = token_ids
        self.deadline_s = deadline_s
        self.timing = timing
        self.is_cancelled = False
        self.num_prompt_tokens = sum(len(ids) for ids in token_ids)
        self.num_output_tokens = 0
        self.outcome: Future[Embeddings] = Future()
        self.outcome.set_running_or_notify_cancel()  # whoever awaits it may be cancelled without changing it
        self._vectors: list[array[float] | None] = [None] * len(token_ids)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def is_complete(self) -> bool:
        """Whether every text has its vector."""
        return all(vector is not None for vector in self._vectors)

    def close(self) -> None:
        """Cancel it: what has not been run when the worker looks next is not run."""
        self.is_cancelled = True

    def start(self, now_s: float) -> None:
        """Mark the request scheduled, once."""
        if self.timing.scheduled_s is None:
            self.timing = replace(self.timing, scheduled_s=now_s)

    def put(self, index: int, vector: array[float]) -> None:
        """Take the vector of one text."""
        self._vectors[index] = vector

    def finish(self, reason: FinishReason, now_s: float, error: str | None = None) -> Finished:
        """Give the outcome to whoever waits."""
        self.timing = replace(self.timing, finished_s=now_s)
        finished = Finished(self.request_id, reason, self.num_prompt_tokens, 0, 0, self.timing, error)
        failure = finished.failure()
        if failure is None:
            vectors = tuple(vector for vector in self._vectors if vector is not None)
            self.outcome.set_result(Embeddings(vectors, self.num_prompt_tokens))
        else:
            self.outcome.set_exception(failure)
        return finished
