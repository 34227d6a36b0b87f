"""The admin API's application: its own mount, its own OpenAPI document."""

from __future__ import annotations

from fastapi import Depends, FastAPI

from engine.api.admin import caches, keys, models, plans, requests, signatures, weights
from engine.api.auth import require_admin
from engine.api.document import ERRORS, DocumentedApi
from engine.api.errors import add_error_handlers


def build_admin() -> FastAPI:
    """The routes, to be mounted at `/admin`; `state.console` is the server's to set."""
    admin = DocumentedApi(
        title="AutoGLM Console: administration",
        version="1",
        description="Nothing here waits for a model: what takes time is begun, and its progress is read again.",
        dependencies=[Depends(require_admin)],
        responses=ERRORS,
    )
    for part in (models, plans, weights, signatures, requests, keys, caches):
        admin.include_router(part.router)
    add_error_handlers(admin)
    return admin
