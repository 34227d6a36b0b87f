"""The API, to be mounted beside the pages or served alone."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from engine.api import batches, chat, completions, embeddings, environment, files, models, responses, tokens
from engine.api.admin import build_admin
from engine.api.auth import guard
from engine.api.batch_rows import BatchRows
from engine.api.body_limit import Bodies, BodyBounds, BodyLimit
from engine.api.document import ERRORS, DocumentedApi
from engine.api.errors import add_error_handlers
from engine.api.health import healthz, readyz
from engine.api.kept_answers import KeptAnswers
from engine.api.metrics import metrics
from engine.api.request_ids import RequestIds
from engine.api.response_runs import ResponseRuns
from engine.config import Settings
from engine.console import Console, open_console
from engine.errors import ProfileError
from engine.state.api_keys import Scope
from engine.state.responses import ResponseStore

logger = logging.getLogger(__name__)


class Api:
    """The API's routes. `attach` gives them the console once the server has opened it, None takes it away."""

    def __init__(self) -> None:
        self._bodies = Bodies()
        self._v1 = DocumentedApi(title="AutoGLM Console", version="1", responses=ERRORS)
        self._v1.include_router(chat.router)
        self._v1.include_router(completions.router)
        self._v1.include_router(responses.router)
        self._v1.include_router(embeddings.router)
        self._v1.include_router(files.router)
        self._v1.include_router(batches.router)
        self._v1.include_router(tokens.router)
        self._v1.include_router(models.router)
        self._v1.include_router(environment.router)
        add_error_handlers(self._v1)
        self._root = FastAPI(openapi_url=None)
        self._root.include_router(tokens.router)
        add_error_handlers(self._root)
        self._admin = build_admin()
        self._operations = Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/readyz", readyz),
                Route("/metrics", guard(metrics, Scope.METRICS, Scope.ADMIN)),
            ]
        )

    @property
    def routes(self) -> list[BaseRoute]:
        """What a server mounts at its root."""
        names = ("/healthz", "/readyz", "/metrics")
        operations = (Route(name, self._operations) for name in names)
        root = (Route(name, self._bound(self._root)) for name in ("/tokenize", "/detokenize"))
        v1 = KeptAnswers(self._v1, lambda: getattr(self._v1.state, "console", None))
        return [_Under("/v1", self._bound(v1)), _Under("/admin", self._bound(self._admin)), *operations, *root]

    def _bound(self, app: ASGIApp) -> ASGIApp:
        """`app` behind what comes before any key is looked at."""
        return RequestIds(BodyLimit(app, self._bodies))

    def attach(self, console: Console | None) -> None:
        """Connect to a console, or disconnect at shutdown."""
        if console is not None:
            self._bodies.bounds = BodyBounds.of(console.settings)
        self._v1.state.console = console
        self._attach_responses(console)
        self._admin.state.console = console
        self._root.state.console = console
        self._operations.state.console = console
        if console is not None:
            rows = BatchRows(console)
            console.batches.resume(rows.answer, rows.refuse_model)

    def _attach_responses(self, console: Console | None) -> None:
        runs: ResponseRuns | None = getattr(self._v1.state, "responses", None)
        if runs is not None:
            runs.close()
        self._v1.state.responses = (
            None if console is None else ResponseRuns(ResponseStore(console.database, console.clock.wall))
        )


class _Under(Mount):
    """All paths below `path`. Starlette's pattern leaves those with a line break out, and whoever comes next answers
    them."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        super().__init__(path, app)
        self.path_regex = re.compile(self.path_regex.pattern, re.DOTALL)


def build_headless_app(settings: Settings) -> Starlette:
    """The API alone, with the console's life tied to the server's."""
    api = Api()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        console = open_console(settings)
        api.attach(console)
        _take_report(console)
        try:
            yield
        finally:
            api.attach(None)
            console.close()

    return Starlette(routes=api.routes, lifespan=lifespan)


def _take_report(console: Console) -> None:
    """There is no page here that would ask for the report that `/v1/environment` gives."""
    try:
        console.environment.start()
    except ProfileError as error:
        logger.error("%s", error)
        console.notices.append(f"The environment was not checked: {error}")
