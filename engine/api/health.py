"""Liveness and readiness."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.console import Console
from engine.instance import InstanceInfo, InstanceState
from engine.remote.instance import RemoteInfo


async def healthz(_: Request) -> Response:
    """200 while the process answers at all."""
    return JSONResponse({"status": "ok"})


async def readyz(http: Request) -> Response:
    """200 when a model is ready, here or at a remote instance, else 503; with why each of them is not."""
    console: Console | None = getattr(http.app.state, "console", None)
    instances = () if console is None else console.engine.serving()
    remotes = () if console is None else console.gateway.remotes.infos()
    readings: tuple[InstanceInfo | RemoteInfo, ...] = (*remotes, *instances)
    is_ready = any(one.state is InstanceState.READY for one in readings)
    body = {
        "ready": is_ready,
        "instances": {one.name: {"state": one.state.value, "reason": one.reason} for one in readings},
    }
    return JSONResponse(body, 200 if is_ready else 503)
