"""The gateway as an endpoint may use it: in the caller's name, within the caller's quotas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

from engine.api.auth import InferenceCaller
from engine.api.provider import console_of
from engine.errors import ConsoleError
from engine.scheduling.quotas import Meter


async def open_meter(http: Request, caller: InferenceCaller) -> AsyncIterator[Meter]:
    """Closed once the answer has been sent, whole or streamed, or the client has left. Refusals have the caller's
    headers as answers do."""
    console = console_of(http)
    with console.quotas.meter(caller, console.gateway, http.headers.get("traceparent")) as meter:
        try:
            yield meter
        except ConsoleError as error:
            error.headers = {**meter.headers(), **error.headers}
            raise


Metered = Annotated[Meter, Depends(open_meter)]
