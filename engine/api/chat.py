"""`POST /v1/chat/completions`, whole or as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from engine.api.auth import require_key
from engine.api.errors import error_body
from engine.api.provider import ConsoleOfServer
from engine.api.schemas import AnswerMessage, ChatCompletion, ChatCompletionRequest, Choice, Usage
from engine.errors import DeadlineError, InstanceNotReadyError, WorkerDiedError
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished, FinishReason, TokenInfo

router = APIRouter(dependencies=[Depends(require_key)])


@router.post("/chat/completions", response_model=ChatCompletion, summary="Answer a conversation")
async def create_chat_completion(body: ChatCompletionRequest, http: Request, console: ConsoleOfServer) -> Response:
    """Streams when `stream` is true. A client that leaves ends its request within one step."""
    stream = await run_in_threadpool(console.engine.stream, body.to_request())
    headers = {"x-request-id": stream.request_id}
    if body.stream:
        return _EventResponse(stream, _events(stream, body), headers)
    completion = await _collect(stream, body, http)
    return JSONResponse(completion.model_dump(exclude_none=True), headers=headers)


class _EventResponse(StreamingResponse):
    """Server-sent events. Closes the stream also when the client left before the first of them, where the
    generator's own `finally` never runs."""

    def __init__(self, stream: OutputStream, events: AsyncIterator[str], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def _collect(stream: OutputStream, body: ChatCompletionRequest, http: Request) -> ChatCompletion:
    watcher = asyncio.create_task(_close_on_disconnect(stream, http))
    text: list[str] = []
    tokens: list[TokenInfo] = []
    try:
        async for event in stream:
            if isinstance(event, Delta):
                text.append(event.text)
                tokens.extend(event.tokens)
    finally:
        stream.close()
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
    finished = stream.finished
    if finished is None:
        raise WorkerDiedError("the request ended without an answer; send it again")
    _raise_unless_complete(finished)
    choice = Choice(
        message=AnswerMessage(content="".join(text)),
        logprobs=_logprobs(tokens) if body.logprobs else None,
        finish_reason=finished.reason.value,
    )
    return ChatCompletion(
        id=finished.request_id,
        created=int(finished.timing.received_at_s),
        model=body.model,
        choices=[choice],
        usage=_usage(finished),
        seed=finished.seed,
    )


async def _close_on_disconnect(stream: OutputStream, http: Request) -> None:
    """The body was read before, so the next message of the connection is its end."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
    stream.close()


def _raise_unless_complete(finished: Finished) -> None:
    if finished.reason is FinishReason.DEADLINE:
        raise DeadlineError(finished.error or "the request ran past its deadline")
    if finished.reason is FinishReason.ERROR:
        raise WorkerDiedError(finished.error or "the request failed")
    if finished.reason is FinishReason.CANCELLED:
        raise InstanceNotReadyError("the request was cancelled by the operator; send it again")


async def _events(stream: OutputStream, body: ChatCompletionRequest) -> AsyncIterator[str]:
    try:
        yield _chunk(stream, body, {"role": "assistant", "content": ""})
        async for event in stream:
            if isinstance(event, Finished):
                for line in _last_chunks(stream, body, event):
                    yield line
            elif event.text or (body.logprobs and event.tokens):
                logprobs = _logprobs(event.tokens) if body.logprobs else None
                yield _chunk(stream, body, {"content": event.text}, logprobs=logprobs)
    finally:
        stream.close()


def _last_chunks(stream: OutputStream, body: ChatCompletionRequest, finished: Finished) -> Iterable[str]:
    if finished.reason in (FinishReason.STOP, FinishReason.LENGTH):
        yield _chunk(stream, body, {}, finish_reason=finished.reason.value)
    else:
        message = finished.error or "the request was cancelled by the operator; send it again"
        yield _sse(error_body(message, finished.reason.value, 500))
    if body.stream_options is not None and body.stream_options.include_usage:
        yield _chunk(stream, body, None, usage=_usage(finished))
    yield "data: [DONE]\n\n"


def _chunk(
    stream: OutputStream,
    body: ChatCompletionRequest,
    delta: dict[str, Any] | None,
    logprobs: dict[str, Any] | None = None,
    finish_reason: str | None = None,
    usage: Usage | None = None,
) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
    chunk: dict[str, Any] = {
        "id": stream.request_id,
        "object": "chat.completion.chunk",
        "created": int(stream.received_at_s),
        "model": body.model,
        "choices": [] if delta is None else [choice],
    }
    if usage is not None:
        chunk["usage"] = usage.model_dump()
    return _sse(chunk)


def _sse(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _usage(finished: Finished) -> Usage:
    prompt, output = finished.num_prompt_tokens, finished.num_output_tokens
    return Usage(prompt_tokens=prompt, completion_tokens=output, total_tokens=prompt + output)


def _logprobs(tokens: Iterable[TokenInfo]) -> dict[str, Any]:
    return {
        "content": [
            {
                **_token_logprob(token.text, token.logprob),
                "top_logprobs": [_token_logprob(text, value) for _, text, value in token.top],
            }
            for token in tokens
        ]
    }


def _token_logprob(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}
