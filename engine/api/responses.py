"""`/v1/responses`: answers whole, as typed events or in the background; stored, asked for again, gone on from."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, Response

from engine.api.auth import InferenceCaller
from engine.api.document import EVENTS, GENERATION, UNKNOWN
from engine.api.provider import ConsoleOfServer
from engine.api.quotas import Metered
from engine.api.request_ids import name_request
from engine.api.response_objects import DeletedResponse, ItemList, ResponseObject
from engine.api.response_runs import ResponseRuns, events_of
from engine.api.response_writer import ResponseWriter
from engine.api.responses_schema import ResponseRequest
from engine.api.streaming import EventResponse, ended_with_client
from engine.errors import InvalidRequestError, StoreError, WorkerDiedError
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished
from engine.scheduling.quotas import Meter
from engine.state.responses import StoredResponse

router = APIRouter()

# What the engine calls a field, and what this endpoint does.
_NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "response_format": "text.format"}


async def _runs(http: Request, _console: ConsoleOfServer) -> ResponseRuns:
    return cast(ResponseRuns, http.app.state.responses)


_Runs = Annotated[ResponseRuns, Depends(_runs)]


@dataclass(frozen=True, slots=True)
class _Call:
    """One response being made."""

    body: ResponseRequest
    items: list[dict[str, Any]]
    stream: OutputStream
    writer: ResponseWriter
    runs: ResponseRuns
    key_id: str | None

    async def keep(self) -> None:
        """Store it, where it is to be stored."""
        if self.body.store:
            stored = StoredResponse(self.writer.response, tuple(self.items))
            await run_in_threadpool(self.runs.store.add, stored, self.key_id)


@router.post("/responses", response_model=ResponseObject, responses=GENERATION | EVENTS, summary="Make a response")
async def create_response(body: ResponseRequest, http: Request, meter: Metered, runs: _Runs) -> Response:
    """Streams typed events when `stream` is true. A client that leaves ends its request within one step, but not a
    response in the background: that one goes on until it is complete or cancelled."""
    call = await run_in_threadpool(_begin, body, meter, runs)
    name_request(http, call.stream.request_id)
    headers = meter.headers()
    if body.stream:
        return EventResponse(call.stream, _events(call), headers)
    if body.background:
        await _go_on_in_background(call, meter)
    else:
        await _complete(call, http)
    return JSONResponse(call.writer.response, headers=headers)


def _begin(body: ResponseRequest, meter: Meter, runs: ResponseRuns) -> _Call:
    body.check()
    key_id = meter.caller.key_id
    items = [item.to_item() for item in body.input]
    try:
        earlier = runs.earlier_items(body.previous_response_id, key_id)
        stream = meter.stream(body.to_request(f"resp_{uuid.uuid4().hex}", earlier, items))
    except InvalidRequestError as error:
        first, dot, rest = (error.param or "").partition(".")
        name = _NAMES.get(first, first)
        error.args = (str(error).replace("max_tokens", "max_output_tokens"),)
        error.param = f"{name}{dot}{rest}" or None
        raise
    return _Call(body, items, stream, ResponseWriter(body, stream.request_id, stream.received_at_s), runs, key_id)


async def _go_on_in_background(call: _Call, meter: Meter) -> None:
    try:
        await call.keep()
    except BaseException:
        call.stream.close()
        raise
    call.runs.start(call.stream, call.writer, call.items, meter.hand_over())


async def _complete(call: _Call, http: Request) -> None:
    """Wait for the whole answer; raises the ConsoleError that says why there is none."""
    async with ended_with_client(call.stream, http):
        async for event in call.stream:
            for _ in events_of(call.writer, event):
                pass
    if call.stream.finished is None:
        raise WorkerDiedError("the request ended without an answer; send it again")
    failure = call.stream.finished.failure()
    if failure is not None:
        raise failure
    await call.keep()


async def _events(call: _Call) -> AsyncIterator[str]:
    try:
        for body in call.writer.begin():
            yield _sse(body)
        async for event in call.stream:
            bodies = list(events_of(call.writer, event))
            if isinstance(event, Finished):
                await call.keep()
            for body in bodies:
                yield _sse(body)
    except StoreError as error:
        yield _sse(call.writer.break_off(error.code, str(error)))
    finally:
        call.stream.close()


def _sse(body: dict[str, Any]) -> str:
    """A server-sent event that is named by its type."""
    return f"event: {body['type']}\ndata: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"


@router.get("/responses/{response_id}", response_model=ResponseObject, responses=UNKNOWN, summary="A stored response")
async def get_response(
    response_id: str, caller: InferenceCaller, runs: _Runs, stream: bool = False, starting_after: int | None = None
) -> Response:
    """As it stands: one in the background may be queued or in progress."""
    if stream or starting_after is not None:
        name = "stream" if stream else "starting_after"
        raise InvalidRequestError(f"{name} is not supported here: ask again until the response is complete", name)
    stored = await run_in_threadpool(runs.get, response_id, caller.key_id)
    return JSONResponse(stored.response)


@router.delete("/responses/{response_id}", responses=UNKNOWN, summary="Forget a response")
async def delete_response(response_id: str, caller: InferenceCaller, runs: _Runs) -> DeletedResponse:
    """One that is under way is cancelled first. Responses that went on from it can be read and not gone on from."""
    await run_in_threadpool(runs.get, response_id, caller.key_id)
    await runs.cancel(response_id)
    await run_in_threadpool(runs.store.delete, response_id)
    return DeletedResponse(id=response_id)


@router.post(
    "/responses/{response_id}/cancel",
    response_model=ResponseObject,
    responses=UNKNOWN,
    summary="End a background response",
)
async def cancel_response(response_id: str, caller: InferenceCaller, runs: _Runs) -> Response:
    """Returns it once it has ended; one that had ended before is returned as it is."""
    stored = await run_in_threadpool(runs.get, response_id, caller.key_id)
    if not stored.response["background"]:
        raise InvalidRequestError(
            f"{response_id} was not made with background: true: close its connection to cancel it", "response_id"
        )
    await runs.cancel(response_id)
    return JSONResponse((await run_in_threadpool(runs.get, response_id, caller.key_id)).response)


@router.get("/responses/{response_id}/input_items", responses=UNKNOWN, summary="What a response answers")
async def list_input_items(
    response_id: str,
    caller: InferenceCaller,
    runs: _Runs,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> ItemList:
    """The input of this response, without that of the responses before it."""
    stored = await run_in_threadpool(runs.get, response_id, caller.key_id)
    items = list(stored.input_items if order == "asc" else reversed(stored.input_items))
    if after is not None:
        place = next((index for index, item in enumerate(items) if item["id"] == after), None)
        if place is None:
            raise InvalidRequestError(f"after is {after!r}, which is no item of this response", "after")
        items = items[place + 1 :]
    page = items[:limit]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return ItemList(data=page, first_id=first, last_id=last, has_more=len(items) > limit)
