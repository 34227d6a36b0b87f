"""The API, to be mounted beside the pages or served alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route

from engine.api import chat, models
from engine.api.errors import add_error_handlers
from engine.api.health import healthz, metrics, readyz
from engine.config import Settings
from engine.console import Console, open_console


class Api:
    """The API's routes. `attach` gives them the console once the server has opened it, None takes it away."""

    def __init__(self) -> None:
        self._v1 = FastAPI(title="AutoGLM Console", version="1", openapi_url="/openapi.json", docs_url="/docs")
        self._v1.include_router(chat.router)
        self._v1.include_router(models.router)
        add_error_handlers(self._v1)
        self._operations = Starlette(
            routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """What a server mounts at its root."""
        names = ("/healthz", "/readyz", "/metrics")
        return [Mount("/v1", self._v1), *(Route(name, self._operations) for name in names)]

    def attach(self, console: Console | None) -> None:
        """Connect to a console, or disconnect at shutdown."""
        self._v1.state.console = console
        self._operations.state.console = console


def build_headless_app(settings: Settings) -> Starlette:
    """The API alone, with the console's life tied to the server's."""
    api = Api()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        console = open_console(settings)
        api.attach(console)
        try:
            yield
        finally:
            api.attach(None)
            console.close()

    return Starlette(routes=api.routes, lifespan=lifespan)
