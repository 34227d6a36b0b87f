"""The gateway as an endpoint may use it: in the caller's name, within the caller's quotas."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request

from engine.api.auth import InferenceCaller
from engine.api.provider import console_of
from engine.console import Console
from engine.errors import ConsoleError
from engine.keyring import Caller
from engine.scheduling.quotas import Meter


async def open_meter(http: Request, caller: InferenceCaller) -> AsyncIterator[Meter]:
    """Closed once the answer has been sent, whole or streamed, or the client has left."""
    with metered(console_of(http), caller, http.headers.get("traceparent")) as meter:
        yield meter


@contextmanager
def metered(console: Console, caller: Caller, trace_parent: str | None) -> Iterator[Meter]:
    """A meter, closed at the block's end. Refusals in it get the caller's headers, as answers have them."""
    with console.quotas.meter(caller, console.gateway, trace_parent) as meter:
        try:
            yield meter
        except ConsoleError as error:
            error.headers = {**meter.headers(), **error.headers}
            raise


Metered = Annotated[Meter, Depends(open_meter)]
