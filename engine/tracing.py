"""OpenTelemetry spans of requests, by the conventions for generative AI, to whatever collector speaks OTLP over HTTP.

The standard variables are the settings: OTEL_EXPORTER_OTLP_ENDPOINT turns it on, OTEL_SERVICE_NAME,
OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER and the rest hold as OpenTelemetry's documents say.
Names: https://github.com/open-telemetry/semantic-conventions-genai (docs/gen-ai/gen-ai-spans.md).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Final, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from engine.inference.embedding import EmbeddingRequest
from engine.inference.request import Request, SamplingParams
from engine.latency import record as records
from engine.latency.record import RequestRecord

PROVIDER: Final = "autoglm-console"
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_S: Final = 5.0
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_FAILED: Final = (records.Status.ERRORED, records.Status.REJECTED)

Attributes: TypeAlias = dict[str, str | bool | int | float | list[str]]


class Tracing:
    """Makes a span of each ended request, with one inside it for each of its phases. Any thread may call; spans are
    sent from a thread of OpenTelemetry's own, and dropped, with a line in the log, when the collector takes none."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._provider = TracerProvider(resource=_resource())
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(PROVIDER)

    def note(self, record: RequestRecord, request: Request | EmbeddingRequest) -> None:
        """A request ended, or was refused."""
        span = self._tracer.start_span(
            f"{_operation(request)} {record.model}",
            _parent(request.trace_parent),
            SpanKind.SERVER if record.source == "api" else SpanKind.INTERNAL,
            attributes={**_of_record(record), **_of_request(request)},
            start_time=_ns(record, 0.0),
        )
        if record.status in _FAILED:
            span.set_attribute("error.type", record.finish_reason)
            span.set_status(Status(StatusCode.ERROR, record.error))
        inside = trace.set_span_in_context(span)
        for name, begin_s, end_s in _phases(record):
            self._tracer.start_span(name, inside, start_time=_ns(record, begin_s)).end(_ns(record, end_s))
        span.end(_ns(record, record.finished_s))

    def close(self) -> None:
        """Send what is pending, for some seconds at most."""
        flushing = threading.Thread(target=self._provider.force_flush, name="tracing-flush", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)  # the SDK heeds no limit of its own while a collector is tried again and again
        self._exporter.shutdown()
        self._provider.shutdown()


def open_tracing(environ: Mapping[str, str] = os.environ) -> Tracing | None:
    """As the environment's OTEL_ variables say; None where they name no endpoint, or switch the SDK off."""
    is_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or not any(environ.get(name) for name in _ENDPOINTS):
        return None
    return Tracing(OTLPSpanExporter())


def _resource() -> Resource:
    """What OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME say, and a name where they give none."""
    found = Resource.create()
    is_named = not str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found if is_named else found.merge(Resource({SERVICE_NAME: PROVIDER}))


def _parent(trace_parent: str | None) -> Context | None:
    """The caller's span, from a W3C `traceparent`; None, the root, for one that cannot be read."""
    return None if trace_parent is None else _PROPAGATOR.extract({"traceparent": trace_parent})


def _operation(request: Request | EmbeddingRequest) -> str:
    if isinstance(request, EmbeddingRequest):
        return "embeddings"
    return "chat" if request.prompt is None else "text_completion"


def _of_record(record: RequestRecord) -> Attributes:
    found: Attributes = {
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": record.model,
        "gen_ai.response.id": record.request_id,
        "gen_ai.response.finish_reasons": [record.finish_reason],
        "gen_ai.usage.input_tokens": record.num_prompt_tokens,
        "gen_ai.usage.output_tokens": record.num_output_tokens,
    }
    if record.ttft_s is not None:
        found["gen_ai.response.time_to_first_chunk"] = record.ttft_s
    return found


def _of_request(request: Request | EmbeddingRequest) -> Attributes:
    operation: Attributes = {"gen_ai.operation.name": _operation(request)}
    if isinstance(request, EmbeddingRequest):
        return operation
    output: Attributes = {} if request.constraint is None else {"gen_ai.output.type": "json"}
    return {**operation, **output, **_of_sampling(request.sampling)}


def _of_sampling(sampling: SamplingParams) -> Attributes:
    named: dict[str, float | int | None] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": float(sampling.top_k) if sampling.top_k else None,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
    }
    found: Attributes = {f"gen_ai.request.{name}": value for name, value in named.items() if value is not None}
    if sampling.stop:
        found["gen_ai.request.stop_sequences"] = list(sampling.stop)
    return found


def _phases(record: RequestRecord) -> list[tuple[str, float, float]]:
    """Name, begin and end, in seconds after receipt; of a remote answer the start is not known."""
    marks: tuple[tuple[str, float | None, float | None], ...] = (
        ("queue", 0.0, record.scheduled_s),
        ("prefill", record.scheduled_s, record.first_token_s),
        ("decode", record.first_token_s, record.last_token_s),
    )
    return [(name, begin_s, end_s) for name, begin_s, end_s in marks if begin_s is not None and end_s is not None]


def _ns(record: RequestRecord, after_s: float) -> int:
    """Nanoseconds since the epoch."""
    return round(record.received_at_s * 1e9) + round(after_s * 1e9)
