"""From a request that ended, or was refused, to its latency record, and to whoever is told of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.clock import Clock
from engine.config import Settings
from engine.errors import ConsoleError
from engine.inference.request import WARM_UP, Finished, FinishReason, Request, Timing
from engine.latency.histogram import GAP_BOUNDS_S, Histogram, HistogramReading
from engine.latency.record import RequestRecord, Status
from engine.log_lines import log_request, prompt_of

if TYPE_CHECKING:
    from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
    from engine.inference.sequence import Sequence
    from engine.tracing import Tracing

logger = logging.getLogger(__name__)

OnRecord = Callable[[RequestRecord], None]

# What a refused caller sent, or an error quotes of it, is kept up to so many characters.
_MOST_KEPT = 500
_STATUS = {
    FinishReason.STOP: Status.SUCCESSFUL,
    FinishReason.LENGTH: Status.SUCCESSFUL,
    FinishReason.CANCELLED: Status.CANCELLED,
    FinishReason.DEADLINE: Status.ERRORED,
    FinishReason.QUEUE_TIMEOUT: Status.REJECTED,
    FinishReason.ERROR: Status.ERRORED,
}


class Recording:
    """Tells `on_record` of requests that ended and `on_refusal` of those that were never let in, logs them where the
    settings ask for that, makes their spans, and counts the gaps between tokens. Nothing raises, because a record must
    not end a request.
    """

    def __init__(
        self,
        on_record: OnRecord,
        on_refusal: OnRecord,
        clock: Clock,
        settings: Settings,
        tracing: Tracing | None = None,
    ) -> None:
        self._on_record = on_record
        self._on_refusal = on_refusal
        self._clock = clock
        self._tracing = tracing
        self._is_logged = settings.log_format == "json"
        self._is_prompt_logged = settings.log_prompts
        self._gaps: dict[str, Histogram] = {}

    def finish(self, sequence: Sequence | EmbeddingJob, finished: Finished) -> None:
        """A request that was let in has ended. Called on the worker's thread."""
        if sequence.request.source != WARM_UP:
            self.note(sequence.request, finished)

    def note(self, request: Request | EmbeddingRequest, finished: Finished) -> None:
        """A request has ended, wherever it was answered."""
        self._tell(self._on_record, make_record(request, finished), request)

    def refuse(self, request: Request | EmbeddingRequest, error: ConsoleError, timing: Timing) -> None:
        """A request was not let in, and its caller gets `error`."""
        elapsed_s = self._clock.monotonic() - timing.received_s
        self._tell(self._on_refusal, make_refusal(request, error, timing.received_at_s, elapsed_s), request)

    def gaps_of(self, model: str) -> Histogram:
        """Where the runners of a model count the seconds between two tokens of a request."""
        return self._gaps.setdefault(model, Histogram(GAP_BOUNDS_S))

    def gaps(self) -> dict[str, HistogramReading]:
        """A reading of those by model."""
        return {name: histogram.read() for name, histogram in tuple(self._gaps.items())}

    def _tell(self, on_record: OnRecord, record: RequestRecord, request: Request | EmbeddingRequest) -> None:
        try:
            on_record(record)
            if self._is_logged:
                log_request(record, prompt_of(request) if self._is_prompt_logged else None)
            if self._tracing is not None:
                self._tracing.note(record, request)
        except Exception:
            logger.exception("the record of %s is lost", record.request_id)


def make_record(request: Request | EmbeddingRequest, finished: Finished) -> RequestRecord:
    """What is kept of an ended request: its times as seconds after receipt. One that a time limit ended before it
    started counts as rejected."""
    timing = finished.timing
    has_started = timing.scheduled_s is not None or timing.first_token_s is not None  # a remote tells no start
    is_rejected = not has_started and finished.reason in (FinishReason.DEADLINE, FinishReason.QUEUE_TIMEOUT)
    failure = finished.failure()

    def since_received(moment_s: float | None) -> float | None:
        return None if moment_s is None else moment_s - timing.received_s

    return RequestRecord(
        request_id=finished.request_id,
        model=request.model,
        source=request.source,
        received_at_s=timing.received_at_s,
        scheduled_s=since_received(timing.scheduled_s),
        first_token_s=since_received(timing.first_token_s),
        last_token_s=since_received(timing.last_token_s),
        finished_s=since_received(timing.finished_s) or 0.0,
        num_prompt_tokens=finished.num_prompt_tokens,
        num_output_tokens=finished.num_output_tokens,
        finish_reason=failure.code if failure is not None and is_rejected else finished.reason.value,
        status=Status.REJECTED if is_rejected else _STATUS[finished.reason],
        error=finished.error,
        key_id=request.key_id,
    )


def make_refusal(
    request: Request | EmbeddingRequest, error: ConsoleError, received_at_s: float, elapsed_s: float
) -> RequestRecord:
    """What is kept of a request that was never let in; its prompt was not counted."""
    return RequestRecord(
        request_id=request.request_id[:_MOST_KEPT],
        model=request.model[:_MOST_KEPT],
        source=request.source,
        received_at_s=received_at_s,
        scheduled_s=None,
        first_token_s=None,
        last_token_s=None,
        finished_s=elapsed_s,
        num_prompt_tokens=0,
        num_output_tokens=0,
        finish_reason=error.code,
        status=Status.REJECTED,
        error=str(error)[:_MOST_KEPT],
        key_id=request.key_id,
    )
