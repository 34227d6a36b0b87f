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
    """As `python -m engine.models plan --json` prints it. Nothing is fetched, converted or loaded."""
    return to_dict(console.planner.plan(body.to_spec()))
