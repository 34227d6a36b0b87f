"""`POST /v1/chat/completions`, whole or as server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from engine.api.chat_schema import AnswerMessage, ChatCompletion, ChatCompletionRequest, Choice
from engine.api.choices import Choices
from engine.api.document import EVENTS, GENERATION
from engine.api.errors import console_error_body
from engine.api.logprobs import token_logprobs
from engine.api.provider import ConsoleOfServer
from engine.api.quotas import Metered
from engine.api.request_ids import request_id_of
from engine.api.response_cache import CREATED, ID, allow_cache, answer_kept, cache_headers
from engine.api.schemas import Usage
from engine.api.streaming import DONE, Answer, EventResponse, sse, whole_events
from engine.api.tools import ToolCallBody, call_delta
from engine.inference.request import Delta, Finished, FinishReason, TokenInfo

router = APIRouter()
_PREFIX = "req-"


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses=GENERATION | EVENTS,
    summary="Answer a conversation",
)
async def create_chat_completion(
    body: ChatCompletionRequest, http: HttpRequest, console: ConsoleOfServer, meter: Metered
) -> Response:
    """Streams when `stream` is true. A client that leaves ends its request within one step."""
    request_id = request_id_of(http, _PREFIX)
    requests = allow_cache(http, body, body.to_requests(request_id))
    choices = await run_in_threadpool(Choices.begin, meter, requests)
    call = _Call(request_id, int(choices.streams[0].received_at_s), body)
    headers = {**meter.headers(), **cache_headers(console.gateway, choices)}
    if choices.are_kept:
        written = await _write_kept(replace(call, id=ID, created=CREATED), choices, http)
        return await answer_kept(http, console.gateway, choices, written, _PREFIX, headers)
    if body.stream:
        return EventResponse(choices, _Events(call, choices).lines(), headers)
    completion = _completion(call, await choices.collect(http))
    return JSONResponse(completion.model_dump(), headers=headers)


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request."""

    id: str
    created: int
    body: ChatCompletionRequest


async def _write_kept(call: _Call, choices: Choices, http: HttpRequest) -> Response:
    if call.body.stream:
        return await whole_events(_Events(call, choices).lines())
    return JSONResponse(_completion(call, await choices.collect(http)).model_dump())


def _completion(call: _Call, answers: Iterable[Answer]) -> ChatCompletion:
    answers = tuple(answers)
    return ChatCompletion(
        id=call.id,
        created=call.created,
        model=call.body.model,
        choices=[_choice(index, answer, call.body) for index, answer in enumerate(answers)],
        usage=Usage.of(answer.finished for answer in answers),
        seed=answers[0].finished.seed,
    )


def _choice(index: int, answer: Answer, body: ChatCompletionRequest) -> Choice:
    calls = [ToolCallBody.of(call) for call in answer.calls]
    message = AnswerMessage(content=answer.text if answer.text or not calls else None, tool_calls=calls or None)
    logprobs = _logprobs(answer.tokens) if body.logprobs else None
    return Choice(
        index=index, message=message, logprobs=logprobs, finish_reason=_reason(answer.finished, has_calls=bool(calls))
    )


def _reason(finished: Finished, *, has_calls: bool) -> Literal["stop", "length", "tool_calls"]:
    if finished.reason is FinishReason.LENGTH:
        return "length"
    return "tool_calls" if has_calls else "stop"


class _Events:
    """The server-sent events of one request, choices interleaved as they come."""

    def __init__(self, call: _Call, choices: Choices) -> None:
        self._choices = choices
        self._body = call.body
        self._frame: dict[str, Any] = {
            "id": call.id,
            "object": "chat.completion.chunk",
            "created": call.created,
            "model": call.body.model,
        }
        self._have_calls: set[int] = set()
        self._finished: dict[int, Finished] = {}

    async def lines(self) -> AsyncIterator[str]:
        """A failure ends all choices, told in the shape of an error."""
        try:
            for index in range(len(self._choices.streams)):
                yield self._chunk(index, {"role": "assistant", "content": ""})
            async for index, event in self._choices.events():
                failure = event.failure() if isinstance(event, Finished) else None
                if failure is not None:
                    yield sse(console_error_body(failure))
                    break
                for line in self._of(index, event):
                    yield line
            else:
                if self._body.has_usage_event:
                    ordered = (self._finished[index] for index in sorted(self._finished))
                    yield sse({**self._frame, "choices": [], "usage": Usage.of(ordered).model_dump()})
            yield DONE
        finally:
            self._choices.close()

    def _of(self, index: int, event: Delta | Finished) -> Iterable[str]:
        if isinstance(event, Finished):
            self._finished[index] = event
            yield self._chunk(index, {}, finish_reason=_reason(event, has_calls=index in self._have_calls))
            return
        logprobs = _logprobs(event.tokens) if self._body.logprobs and event.tokens else None
        if event.text or (logprobs and not event.calls):
            yield self._chunk(index, {"content": event.text}, logprobs)
            logprobs = None
        if event.calls:
            self._have_calls.add(index)
            yield self._chunk(index, {"tool_calls": [call_delta(piece) for piece in event.calls]}, logprobs)

    def _chunk(
        self,
        index: int,
        delta: dict[str, Any],
        logprobs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
    ) -> str:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage = {"usage": None} if self._body.has_usage_event else {}
        return sse({**self._frame, "choices": [choice], **usage})


def _logprobs(tokens: Iterable[TokenInfo]) -> dict[str, Any]:
    return {"content": token_logprobs(tokens), "refusal": None}
