"""`GET /v1/models`: what can be asked now."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from engine.api.auth import require_key
from engine.api.document import UNKNOWN_MODEL
from engine.api.provider import ConsoleOfServer
from engine.api.schemas import ModelCard, ModelList
from engine.console import Console
from engine.errors import InstanceNotFoundError

router = APIRouter(dependencies=[Depends(require_key)])


@router.get("/models", summary="Models that can be asked now")
async def list_models(console: ConsoleOfServer) -> ModelList:
    """Also instances elsewhere, routes and `auto`. What is not ready is in `/readyz`, not here."""
    return ModelList(data=_ready_models(console))


@router.get("/models/{name:path}", responses=UNKNOWN_MODEL, summary="One model that is ready")
async def get_model(name: str, console: ConsoleOfServer) -> ModelCard:
    """404 when it is not ready or not there."""
    found = next((card for card in _ready_models(console) if card.id == name), None)
    if found is None:
        raise InstanceNotFoundError(f"no model named {name!r} is ready")
    return found


def _ready_models(console: Console) -> list[ModelCard]:
    since = {item.name: int(item.since_s) for item in console.engine.serving()}
    opened = int(console.opened_at_s)  # of what has no moment of its own
    return [ModelCard(id=name, created=since.get(name, opened)) for name in console.gateway.names()]
