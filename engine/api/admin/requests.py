"""The requests that are here now, and ending one of them."""

from __future__ import annotations

from fastapi import APIRouter

from engine.api.admin.schemas import Listing
from engine.api.document import errors
from engine.api.provider import ConsoleOfServer
from engine.engine import RequestInfo
from engine.errors import RequestNotFoundError

router = APIRouter(prefix="/requests", tags=["requests"])
_UNKNOWN = errors({404: "No request of that id is waiting or running."})


@router.get("", summary="Requests waiting and running")
async def list_requests(console: ConsoleOfServer) -> Listing[RequestInfo]:
    """Of all models, here and at remote instances, without their texts."""
    return Listing[RequestInfo](data=list(console.gateway.requests()))


@router.delete("/{request_id}", status_code=204, responses=_UNKNOWN, summary="Cancel a request")
async def cancel_request(request_id: str, console: ConsoleOfServer) -> None:
    """It ends before the next step of its model; whoever waits for it is told that it was cancelled."""
    if not console.gateway.cancel(request_id):
        raise RequestNotFoundError(f"no request {request_id!r} is waiting or running: it ended, or never was here")
