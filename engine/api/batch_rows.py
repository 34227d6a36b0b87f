"""How the rows of batches are answered: by the endpoints themselves, called in this process.

A row's request goes the way of one that came over HTTP, through the same schema, quotas, admission and records to the
same body; what differs is said in one place, the meter. It speaks for the key that made the batch, and sends what it
is given at the lowest priority. Nothing listens on this application, so nobody else can say whose request it is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
from fastapi import FastAPI
from fastapi import Request as HttpRequest

from engine.api import chat, completions, embeddings
from engine.api.errors import add_error_handlers
from engine.api.provider import console_of
from engine.api.quotas import open_meter
from engine.api.request_ids import HEADER, RequestIds
from engine.batches import Batch, Row, RowAnswer
from engine.console import Console
from engine.errors import AuthenticationError, ConsoleError, InstanceNotFoundError
from engine.gateway import Gateway
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import MAX_PRIORITY, Request
from engine.keyring import ANONYMOUS, Caller
from engine.scheduling.quotas import Meter
from engine.scheduling.router import Ask
from engine.state.api_keys import Scope, Usage

SOURCE = "batch"
_KEY_HEADER = "x-batch-key"


class BatchRows:
    """Answers rows of batches over an open console. Belongs to one event loop."""

    def __init__(self, console: Console) -> None:
        self._console = console
        app = FastAPI(openapi_url=None)
        app.state.console = console
        for router in (chat.router, completions.router, embeddings.router):
            app.include_router(router, prefix="/v1")
        app.dependency_overrides[open_meter] = _open_batch_meter
        add_error_handlers(app)
        transport = httpx2.ASGITransport(RequestIds(app), raise_app_exceptions=False)
        self._client = httpx2.AsyncClient(transport=transport, base_url="http://batch", timeout=None)

    async def answer(self, batch: Batch, row: Row) -> RowAnswer:
        """What the endpoint answers to a row. Cancelling this ends the row's request within a step."""
        headers = {HEADER: f"{batch.id}-{row.line}", "content-type": "application/json"}
        if batch.key_id is not None:
            headers[_KEY_HEADER] = batch.key_id
        response = await self._client.post(batch.endpoint, headers=headers, content=json.dumps(row.body))
        body = response.json()
        return RowAnswer(
            response.status_code, response.headers[HEADER], body, _code_of(body), _retry_after_s(response.headers)
        )

    def refuse_model(self, model: str) -> str | None:
        """Why no row may ask for this model; None where one may."""
        try:
            self._console.gateway.decide(Ask(model))
        except InstanceNotFoundError as error:
            return str(error)
        return None


class _InTurn:
    """The gateway for what is not waited for: after everybody who waits, and told apart in the records."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def stream(self, request: Request) -> OutputStream:
        return self._gateway.stream(replace(request, priority=-MAX_PRIORITY, source=SOURCE))

    def embed(self, request: EmbeddingRequest) -> EmbeddingJob:
        return self._gateway.embed(replace(request, source=SOURCE))

    def note_refusal(self, request: Request | EmbeddingRequest, error: ConsoleError) -> None:
        self._gateway.note_refusal(replace(request, source=SOURCE), error)


async def _open_batch_meter(http: HttpRequest) -> AsyncIterator[Meter]:
    """In the name of the key that made the batch.

    Raises:
        AuthenticationError: it is not in force any more, or has not the scope.
    """
    console, key_id = console_of(http), http.headers.get(_KEY_HEADER)
    caller = ANONYMOUS if key_id is None else _caller_of(console, key_id)
    with console.quotas.meter(caller, _InTurn(console.gateway)) as meter:
        yield meter


def _caller_of(console: Console, key_id: str) -> Caller:
    caller = console.keys.find(key_id, Scope.INFERENCE)
    if caller is None:
        raise AuthenticationError("the key that made this batch is not in force any more: send the rows with another")
    console.keys.count(key_id, Usage(num_requests=1))
    return caller


def _code_of(body: Any) -> str | None:
    error = body.get("error") if isinstance(body, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    given = headers.get("retry-after", "")
    return float(given) if given.isdecimal() else None
