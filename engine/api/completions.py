"""`POST /v1/completions`: plain prompts continued, whole or as server-sent events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from engine.api.choices import Choices
from engine.api.completions_schema import Completion, CompletionChoice, CompletionRequest
from engine.api.document import EVENTS, GENERATION
from engine.api.errors import console_error_body
from engine.api.prompts import Prompt
from engine.api.provider import ConsoleOfServer
from engine.api.quotas import Metered
from engine.api.request_ids import request_id_of
from engine.api.response_cache import CREATED, ID, allow_cache, answer_kept, cache_headers
from engine.api.schemas import Usage
from engine.api.streaming import DONE, Answer, EventResponse, sse, whole_events
from engine.gateway import Gateway
from engine.inference.request import Delta, Finished, Request, TokenInfo
from engine.scheduling.quotas import Meter

router = APIRouter()
_PREFIX = "cmpl-"


@router.post("/completions", response_model=Completion, responses=GENERATION | EVENTS, summary="Continue plain prompts")
async def create_completion(
    body: CompletionRequest, http: HttpRequest, console: ConsoleOfServer, meter: Metered
) -> Response:
    """Each prompt is continued `n` times; choices are numbered prompt by prompt. A client that leaves ends all of
    them within one step."""
    call = _Call(request_id_of(http, _PREFIX), int(time.time()), body)
    requests = allow_cache(http, body, body.to_requests(call.id))
    choices, echoes = await run_in_threadpool(_begin, meter, console.gateway, call, requests)
    headers = {**meter.headers(), **cache_headers(console.gateway, choices)}
    if choices.are_kept:
        written = await _write_kept(replace(call, id=ID, created=CREATED), choices, echoes, http)
        return await answer_kept(http, console.gateway, choices, written, _PREFIX, headers)
    if body.stream:
        return EventResponse(choices, _events(choices, echoes, call), headers)
    completion = _completion(call, echoes, await choices.collect(http))
    return JSONResponse(completion.model_dump(), headers=headers)


async def _write_kept(call: _Call, choices: Choices, echoes: Sequence[str], http: HttpRequest) -> Response:
    if call.body.stream:
        return await whole_events(_events(choices, echoes, call))
    return JSONResponse(_completion(call, echoes, await choices.collect(http)).model_dump())


def _completion(call: _Call, echoes: Sequence[str], answers: Sequence[Answer]) -> Completion:
    return Completion(
        id=call.id,
        created=call.created,
        model=call.body.model,
        choices=[
            CompletionChoice(
                index=index,
                text=echo + answer.text,
                logprobs=_logprobs(answer.tokens, 0) if call.body.logprobs is not None else None,
                finish_reason=answer.finished.reason.value,
                seed=answer.finished.seed,
            )
            for index, (echo, answer) in enumerate(zip(echoes, answers, strict=True))
        ],
        usage=Usage.of([answer.finished for answer in answers], call.body.n),
    )


@dataclass(frozen=True, slots=True)
class _Call:
    """One HTTP request."""

    id: str
    created: int
    body: CompletionRequest


def _begin(meter: Meter, gateway: Gateway, call: _Call, requests: Sequence[Request]) -> tuple[Choices, list[str]]:
    """The streams, and what is put before each answer."""
    choices = Choices.begin(meter, requests)
    try:
        return choices, [_echo(gateway, call.body, request.prompt) for request in requests]
    except BaseException:
        choices.close()
        raise


def _echo(gateway: Gateway, body: CompletionRequest, prompt: Prompt | None) -> str:
    if not body.echo or prompt is None:
        return ""
    return prompt if isinstance(prompt, str) else gateway.detokenize(body.model, prompt)


async def _events(choices: Choices, echoes: Sequence[str], call: _Call) -> AsyncIterator[str]:
    finished: dict[int, Finished] = {}
    offsets = [0] * len(echoes)
    try:
        for index, echo in enumerate(echoes):
            if echo:
                yield _chunk(call, index, echo)
        async for index, event in choices.events():
            if isinstance(event, Delta):
                if event.text or (event.tokens and call.body.logprobs is not None):
                    yield _chunk(call, index, event.text, _logprobs_of(call, event, offsets, index))
                continue
            finished[index] = event
            failure = event.failure()
            if failure is not None:
                yield sse(console_error_body(failure))
                break
            yield _chunk(call, index, "", finish_reason=event.reason.value)
        else:
            if call.body.has_usage_event:
                usage = Usage.of([finished[index] for index in sorted(finished)], call.body.n)
                yield sse({**_frame(call), "choices": [], "usage": usage.model_dump()})
        yield DONE
    finally:
        choices.close()


def _logprobs_of(call: _Call, delta: Delta, offsets: list[int], index: int) -> dict[str, Any] | None:
    """Of one event of a stream, going on from the offset that its choice has come to."""
    if call.body.logprobs is None:
        return None
    found = _logprobs(delta.tokens, offsets[index])
    offsets[index] += sum(len(token.text) for token in delta.tokens)
    return found


def _frame(call: _Call) -> dict[str, Any]:
    return {"id": call.id, "object": "text_completion", "created": call.created, "model": call.body.model}


def _chunk(
    call: _Call, index: int, text: str, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
) -> str:
    choice = {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
    return sse({**_frame(call), "choices": [choice]})


def _logprobs(tokens: Iterable[TokenInfo], offset: int) -> dict[str, Any]:
    """The form of the older API: four lists, and of each token the likeliest with itself among them. Offsets count
    characters from the beginning of the answer."""
    tokens = tuple(tokens)
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {token.text: token.logprob, **{text: value for _, text, value in reversed(token.top)}} for token in tokens
        ],
        "text_offset": offsets,
    }
