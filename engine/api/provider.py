"""How the API gets at the console that the server opened."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from engine.console import Console
from engine.errors import InstanceNotReadyError


def console_of(http: Request) -> Console:
    """The console of the server that this request came to.

    Raises:
        InstanceNotReadyError: the server is starting or stopping.
    """
    console = getattr(http.app.state, "console", None)
    if console is None:
        raise InstanceNotReadyError("the console is starting or stopping: try again in a moment")
    return cast(Console, console)


async def _get_console(http: Request) -> Console:
    """Not a plain function: those are called on another thread, which costs more than all else that is asked here."""
    return console_of(http)


ConsoleOfServer = Annotated[Console, Depends(_get_console)]
