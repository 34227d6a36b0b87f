"""`/v1/batches`: the rows of a file answered when there is room, followed and cancelled."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool

from engine.api.auth import InferenceCaller
from engine.api.batches_schema import BatchList, BatchObject, BatchRequest
from engine.api.document import UNKNOWN, errors
from engine.api.provider import ConsoleOfServer

router = APIRouter(responses=UNKNOWN)
_TOO_MANY = errors({429: "The key has as many batches under way as it may."})
_ENDED = errors({409: "It has ended, or is about to."})


@router.post("/batches", responses=_TOO_MANY, summary="Have the rows of a file answered")
async def create_batch(body: BatchRequest, caller: InferenceCaller, console: ConsoleOfServer) -> BatchObject:
    """Returns at once; every line of the file is checked before any is run. Rows wait until whoever asks at the same
    time has been served, and hold to the quotas of the key."""
    batch = await run_in_threadpool(
        console.batches.create, caller.key_id, body.input_file_id, body.endpoint, body.metadata
    )
    return BatchObject.of(batch)


@router.get("/batches", summary="The batches of this key")
async def list_batches(
    caller: InferenceCaller,
    console: ConsoleOfServer,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> BatchList:
    """Newest first."""
    found = await run_in_threadpool(console.batches.list, caller.key_id, after, limit + 1)
    data = [BatchObject.of(batch) for batch in found[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return BatchList(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/batches/{batch_id}", summary="How far a batch is")
async def get_batch(batch_id: str, caller: InferenceCaller, console: ConsoleOfServer) -> BatchObject:
    """As it stands."""
    return BatchObject.of(await run_in_threadpool(console.batches.get, batch_id, caller.key_id))


@router.post("/batches/{batch_id}/cancel", responses=_ENDED, summary="End a batch")
async def cancel_batch(batch_id: str, caller: InferenceCaller, console: ConsoleOfServer) -> BatchObject:
    """Rows in flight end within a step; what was answered is kept, and has its file once the batch is `cancelled`."""
    return BatchObject.of(await run_in_threadpool(console.batches.cancel, batch_id, caller.key_id))
