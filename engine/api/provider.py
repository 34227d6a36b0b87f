"""How the API gets at the console that the server opened."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Request

from engine.console import Console
from engine.errors import InstanceNotReadyError


def get_console(http: Request) -> Console:
    """The console of this server.

    Raises:
        InstanceNotReadyError: the server is starting or stopping.
    """
    console = getattr(http.app.state, "console", None)
    if console is None:
        raise InstanceNotReadyError("the console is starting or stopping: try again in a moment")
    return cast(Console, console)


ConsoleOfServer = Annotated[Console, Depends(get_console)]
