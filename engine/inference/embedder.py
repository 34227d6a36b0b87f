"""Forward passes to hidden states, pooled to one vector a text: what a worker does between two steps of its runner.

The passes are those of the runner (forward.py), without padding, so a text has the same vector alone and in any batch
to the last bits of a float.
"""

from __future__ import annotations

import itertools
import threading
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

import torch

from engine.clock import Clock
from engine.errors import InstanceNotReadyError, QueueFullError
from engine.inference.embedding import EmbeddingJob, Pooling
from engine.inference.forward import Forward, Part
from engine.inference.parity import forward_of
from engine.inference.request import Finished, FinishReason
from engine.models.loader import LoadedModel
from engine.scheduling.window import WaitingText, Window, earliest_next_s, plan_batch

MAX_WAITING_TEXTS = 4096


class _Text:
    """One text of a job, and how far it has been run."""

    def __init__(self, job: EmbeddingJob, index: int) -> None:
        self.job = job
        self.index = index
        self.token_ids = job.token_ids[index]
        self.num_computed = 0
        self._cache: Any = None
        self._total: torch.Tensor | None = None

    def load(self) -> WaitingText:
        """This text as planning sees it."""
        num_left = len(self.token_ids) - self.num_computed
        return WaitingText(self.job.timing.received_s, num_left, self.num_computed > 0)

    def part(self, forward: Forward, num_tokens: int) -> Part:
        """Its next tokens. There is room for all of it: a text that is cut needs its earlier pieces."""
        if self._cache is None:
            self._cache = forward.new_cache(len(self.token_ids), len(self.token_ids))
        past = self.num_computed
        return Part(self._cache, self.token_ids[past : past + num_tokens], past)

    def take(self, hidden: torch.Tensor) -> bool:
        """Pool the hidden states (tokens, width) of the piece that was run; whether it was the last one."""
        self.num_computed += len(hidden)
        is_last = self.num_computed == len(self.token_ids)
        if self.job.request.pooling is Pooling.MEAN:
            part = hidden.float().sum(dim=0)
            self._total = part if self._total is None else self._total + part
        elif is_last:
            self._total = hidden[-1].float()
        if is_last and self._total is not None:
            self.job.put(self.index, normalise(self._total))
        return is_last


def normalise(vector: torch.Tensor) -> array[float]:
    """The vector with length 1; a mean need not be divided by its count first.

    Raises:
        FloatingPointError: it has no direction, because an element of it is no finite number.
    """
    if not bool(torch.isfinite(vector).all()):
        raise FloatingPointError("the model produced hidden states that are not finite")
    unit = torch.nn.functional.normalize(vector, dim=0)
    return array("f", unit.cpu().numpy().tobytes())


class Embedder:
    """Runs the embedding requests of one model. `step` and `close` belong to the thread that steps the runner; the
    rest may be called from any. `wake` is called when a request arrives."""

    def __init__(
        self,
        loaded: LoadedModel,
        window: Window,
        clock: Clock,
        on_finish: Callable[[EmbeddingJob, Finished], None],
        wake: Callable[[], None],
    ) -> None:
        self._loaded = loaded
        self._forward = forward_of(loaded)
        self._window = window
        self._clock = clock
        self._on_finish = on_finish
        self._wake = wake
        self._lock = threading.Lock()
        self._jobs: dict[str, EmbeddingJob] = {}
        self._texts: deque[_Text] = deque()
        self._is_closed = False
        self._not_before_s = 0.0

    def submit(self, job: EmbeddingJob) -> None:
        """Queue a request.

        Raises:
            QueueFullError: as many texts wait already as may.
            InstanceNotReadyError: the embedder is closed.
        """
        with self._lock:
            if self._is_closed:
                raise InstanceNotReadyError(f"{self._loaded.name} has stopped: wait until it is ready again")
            if len(self._texts) + len(job.token_ids) > MAX_WAITING_TEXTS:
                raise QueueFullError(
                    f"{len(self._texts)} texts wait to be embedded and {len(job.token_ids)} more came, at most "
                    f"{MAX_WAITING_TEXTS} may: try again later or send fewer"
                )
            self._jobs[job.request_id] = job
            self._texts.extend(_Text(job, index) for index in range(len(job.token_ids)))
        self._wake()

    def cancel(self, request_id: str) -> bool:
        """Mark a request cancelled; False when it is not here."""
        with self._lock:
            job = self._jobs.get(request_id)
        if job is None:
            return False
        job.close()
        self._wake()
        return True

    def requests(self) -> list[EmbeddingJob]:
        """The requests that are here now."""
        with self._lock:
            return list(self._jobs.values())

    @torch.inference_mode()
    def step(self, *, is_generating: bool) -> float | None:
        """Run one batch if it is time; the seconds until it will be, None when nothing waits."""
        self._end_cancelled_and_late()
        with self._lock:
            texts = list(itertools.islice(self._texts, self._window.max_texts))
        began_s = self._clock.monotonic()
        batch = plan_batch(
            [text.load() for text in texts],
            self._window,
            began_s,
            is_generating=is_generating,
            not_before_s=self._not_before_s,
        )
        if not batch.num_tokens:
            return batch.wait_s
        self._run(texts[: len(batch.num_tokens)], batch.num_tokens)
        self._not_before_s = earliest_next_s(began_s, self._clock.monotonic())
        return 0.0

    @property
    def is_asked(self) -> bool:
        """Whether texts wait."""
        return bool(self._texts)

    def refuse(self) -> None:
        """Take no new requests, from any thread."""
        with self._lock:
            self._is_closed = True

    def close(self, error: str | None) -> None:
        """Refuse new requests and end those that are here: as errors with `error`, else as cancelled. Only once no
        thread steps any more."""
        self.refuse()
        reason = FinishReason.CANCELLED if error is None else FinishReason.ERROR
        for job in self.requests():
            self._end(job, reason, error)

    def _end_cancelled_and_late(self) -> None:
        now_s = self._clock.monotonic()
        for job in self.requests():
            if job.is_cancelled:
                self._end(job, FinishReason.CANCELLED)
            elif now_s >= job.deadline_s:
                allowed_s = job.deadline_s - job.timing.received_s
                self._end(job, FinishReason.DEADLINE, f"the request did not finish within {allowed_s:g} s")

    def _run(self, texts: list[_Text], num_tokens: tuple[int, ...]) -> None:
        """One forward pass over the next tokens of each text."""
        for text in texts:
            text.job.start(self._clock.monotonic())
        counted = zip(texts, num_tokens, strict=True)
        hidden = self._forward.hidden([text.part(self._forward, count) for text, count in counted])
        broken: dict[str, str] = {}
        for text, part in zip(texts, hidden.split(num_tokens), strict=True):
            try:
                is_last = text.take(part)
            except FloatingPointError as error:
                broken[text.job.request_id] = f"{error}: try float32, or load the model again"
                is_last = True
            if is_last:
                with self._lock:
                    self._texts.popleft()
        for job in {text.job.request_id: text.job for text in texts}.values():
            if job.request_id in broken:
                self._end(job, FinishReason.ERROR, broken[job.request_id])
            elif job.is_complete:
                self._end(job, FinishReason.STOP)

    def _end(self, job: EmbeddingJob, reason: FinishReason, error: str | None = None) -> None:
        with self._lock:
            self._jobs.pop(job.request_id, None)
            self._texts = deque(text for text in self._texts if text.job is not job)
        self._on_finish(job, job.finish(reason, self._clock.monotonic(), error))
