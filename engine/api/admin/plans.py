"""Will it fit: a model's memory against what is free, before it is loaded."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from engine.api.admin.schemas import SpecBody
from engine.api.provider import ConsoleOfServer
from engine.models.plan_text import to_dict

router = APIRouter(prefix="/plan", tags=["models"])


@router.post("", summary="Plan a model's memory")
def plan_model(body: SpecBody, console: ConsoleOfServer) -> dict[str, Any]:
    """As `python -m engine.models plan --json` prints it. Nothing is converted or loaded. Of a model of the hub that
    was not pulled headers alone are read there, and `download` says how much a pull would fetch."""
    spec = body.to_spec()
    download = console.planner.download(spec.source)
    return to_dict(console.planner.plan(spec), download)
