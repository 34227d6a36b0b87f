"""Spans as a collector gets them: OTLP over HTTP on loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from engine.config import Settings
from engine.console import open_console
from engine.inference.embedding import EmbeddingRequest
from engine.inference.request import Message, Request, SamplingParams
from engine.latency.record import RequestRecord, Status
from engine.tracing import Tracing, open_tracing
from tests.engine.api.servers import await_ready, build_app, serve

_SECRET = "my password is hunter2"
_TRACE, _CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
_RECORD = RequestRecord(
    "r", "m", "api", 1_700_000_000.0, 0.5, 1.25, 3.0, 3.5, 7, 9, "stop", Status.SUCCESSFUL
)  # fmt: skip


class Collector:
    """Takes what exporters post."""

    def __init__(self) -> None:
        self.posted: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.posted.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing on stderr."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def spans(self) -> dict[str, Span]:
        """All of them by name."""
        scopes = [scope for post in self.posted for of in post.resource_spans for scope in of.scope_spans]
        return {span.name: span for scope in scopes for span in scope.spans}

    def service(self) -> str:
        """The name that the last spans came from."""
        found = self.posted[-1].resource_spans[0].resource.attributes
        return next(pair.value.string_value for pair in found if pair.key == "service.name")


@pytest.fixture
def collector() -> Iterator[Collector]:
    one = Collector()
    thread = threading.Thread(target=one.server.serve_forever, daemon=True)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


@pytest.fixture
def tracing(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Tracing:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    opened = open_tracing()
    assert opened is not None
    return opened


def _asked(**fields: Any) -> Request:
    return Request("m", (Message("user", _SECRET),), request_id="r", source="api", **fields)


def _attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


def test_a_request_is_a_span_with_its_phases(tracing: Tracing, collector: Collector) -> None:
    sampling = SamplingParams(temperature=0.5, seed=3, max_tokens=9, stop=("END",))
    tracing.note(_RECORD, _asked(sampling=sampling, trace_parent=f"00-{_TRACE}-{_CALLER}-01"))
    tracing.close()
    spans = collector.spans()
    whole = spans["chat m"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (_TRACE, _CALLER)
    assert whole.kind == Span.SPAN_KIND_SERVER
    assert (whole.start_time_unix_nano, whole.end_time_unix_nano) == (
        1_700_000_000_000_000_000,
        1_700_000_003_500_000_000,
    )
    assert set(spans) == {"chat m", "queue", "prefill", "decode"}
    assert {span.parent_span_id for name, span in spans.items() if name != "chat m"} == {whole.span_id}
    prefill = spans["prefill"]
    assert prefill.end_time_unix_nano - prefill.start_time_unix_nano == 750_000_000
    found = _attributes(whole)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.request.model"] == "m"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (7, 9)
    assert (found["gen_ai.request.temperature"], found["gen_ai.request.seed"]) == (0.5, 3)
    assert [value.string_value for value in found["gen_ai.request.stop_sequences"].values] == ["END"]
    assert found["gen_ai.response.time_to_first_chunk"] == 1.25
    assert _SECRET not in str(collector.posted)
    assert collector.service() == "autoglm-console"


def test_a_refusal_is_an_error_without_phases(tracing: Tracing, collector: Collector) -> None:
    refused = RequestRecord(
        "r", "m", "playground", 1e9, None, None, None, 0.0, 0, 0, "queue_full", Status.REJECTED, "the queue is full"
    )
    tracing.note(refused, Request("m", (), prompt="Once", request_id="r"))
    tracing.close()
    (span,) = collector.spans().values()
    assert (span.name, span.kind) == ("text_completion m", Span.SPAN_KIND_INTERNAL)
    assert (span.status.code, span.status.message) == (2, "the queue is full")
    assert _attributes(span)["error.type"] == "queue_full"
    assert span.parent_span_id == b""


def test_embeddings(tracing: Tracing, collector: Collector) -> None:
    tracing.note(_RECORD, EmbeddingRequest("m", (_SECRET,)))
    tracing.close()
    assert _attributes(collector.spans()["embeddings m"])["gen_ai.operation.name"] == "embeddings"
    assert _SECRET not in str(collector.posted)


@pytest.mark.parametrize("trace_parent", ["", "nonsense", f"00-{'0' * 32}-{_CALLER}-01", f"00-{_TRACE}-{_CALLER}"])
def test_a_parent_that_cannot_be_read_is_none(tracing: Tracing, collector: Collector, trace_parent: str) -> None:
    tracing.note(_RECORD, _asked(trace_parent=trace_parent))
    tracing.close()
    assert collector.spans()["chat m"].parent_span_id == b""


def test_the_standard_variables_name_the_service(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "farm")
    tracing = open_tracing()
    assert tracing is not None
    tracing.note(_RECORD, _asked())
    tracing.close()
    assert collector.service() == "farm"


def test_the_span_of_an_answer_goes_on_from_its_callers(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    settings = Settings(home=tmp_path, model=str(tiny_folder), model_name="tiny", device="cpu", kv_cache_gib=0.1)
    console = open_console(settings)
    try:
        await_ready(console)
        body = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": _SECRET}]}
        headers = {"traceparent": f"00-{_TRACE}-{_CALLER}-01", "x-request-id": "mine"}
        with serve(build_app(console)) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200
    finally:
        console.close()
    whole = collector.spans()["chat tiny"]
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (_TRACE, _CALLER)
    assert _attributes(whole)["gen_ai.response.id"] == "mine"
    assert set(collector.spans()) == {"chat tiny", "queue", "prefill", "decode"}
    assert _SECRET not in str(collector.posted)


def test_a_collector_that_is_not_there_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.tracing.FLUSH_S", 0.2)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracing = open_tracing()
    assert tracing is not None
    tracing.note(_RECORD, _asked())
    began_s = time.monotonic()
    tracing.close()
    assert time.monotonic() - began_s < 8.0


@pytest.mark.parametrize(
    "environ", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}]
)
def test_without_an_endpoint_there_is_none(environ: dict[str, str]) -> None:
    assert open_tracing(environ) is None
