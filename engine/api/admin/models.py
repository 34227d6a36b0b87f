"""Load, unload, swap, drain and pin models. Everything that takes time is begun and answered at once."""

from __future__ import annotations

import logging
import threading
from typing import Annotated

from fastapi import APIRouter, Path

from engine.api.admin.readings import InstanceAnswer, listing_of
from engine.api.admin.schemas import (
    MAX_DRAIN_S,
    Accepted,
    Listing,
    LoadBody,
    SwapBody,
    SwapEnd,
    UnloadBody,
)
from engine.api.document import UNKNOWN_MODEL, errors
from engine.api.provider import ConsoleOfServer
from engine.engine import Engine
from engine.errors import InstanceNotFoundError
from engine.instance import InstanceInfo

router = APIRouter(prefix="/models", tags=["models"], responses=UNKNOWN_MODEL)
_CONFLICT = errors({409: "The name is taken, or a swap is under way."})

Name = Annotated[str, Path(description="what clients call the model; it may have slashes")]

logger = logging.getLogger(__name__)


@router.get("", summary="All versions of all models")
async def list_models(console: ConsoleOfServer) -> Listing[InstanceAnswer]:
    """Full readings: state, progress of loading, versions and swaps, memory, queue, batch and KV cache."""
    return listing_of(console.engine.instances())


@router.get("/{name:path}", summary="All versions of one model")
async def get_model(name: Name, console: ConsoleOfServer) -> Listing[InstanceAnswer]:
    """As in the list of all; while a model is loading or swapped, ask again to see its progress."""
    return listing_of(_versions(console.engine, name))


@router.post("", status_code=202, responses=_CONFLICT, summary="Load a model")
def load_model(body: LoadBody, console: ConsoleOfServer) -> Accepted:
    """Begins to load it."""
    return Accepted(name=console.engine.load(body.to_spec(body.name), is_pinned=body.is_pinned))


@router.post("/{name:path}/unload", status_code=202, summary="Unload a model")
def unload_model(name: Name, console: ConsoleOfServer, body: UnloadBody | None = None) -> Accepted:
    """It takes no more requests; those that are here get `drain_s` seconds and then are cancelled."""
    return _begin_unload(console.engine, name, (body or UnloadBody()).drain_s)


@router.post("/{name:path}/drain", status_code=202, summary="Unload a model when its requests have ended")
def drain_model(name: Name, console: ConsoleOfServer) -> Accepted:
    """It takes no more requests; those that are here run to their own ends or deadlines. `unload` hastens it."""
    return _begin_unload(console.engine, name, MAX_DRAIN_S)


@router.post("/{name:path}/swap", status_code=202, responses=_CONFLICT, summary="Replace a model by another version")
def swap_model(name: Name, body: SwapBody, console: ConsoleOfServer) -> Accepted:
    """The old version answers until the new one is loaded and warm, and on if that fails."""
    console.engine.swap(name, body.to_spec(), body.drain_s)
    return Accepted(name=name)


@router.post("/{name:path}/cancel-swap", summary="Give up a swap")
def cancel_swap(name: Name, console: ConsoleOfServer) -> SwapEnd:
    """Also forgets one that failed."""
    return SwapEnd(has_ended=console.engine.cancel_swap(name))


@router.post("/{name:path}/pin", status_code=204, summary="Keep a model loaded")
async def pin_model(name: Name, console: ConsoleOfServer) -> None:
    """It is never unloaded to make room for another."""
    console.engine.pin(name, True)


@router.post("/{name:path}/unpin", status_code=204, summary="Let a model make room for others")
async def unpin_model(name: Name, console: ConsoleOfServer) -> None:
    """It may be unloaded when it is idle and another one needs its memory."""
    console.engine.pin(name, False)


def _versions(engine: Engine, name: str) -> list[InstanceInfo]:
    found = [info for info in engine.instances() if info.name == name]
    if not found:
        known = ", ".join(info.name for info in engine.serving()) or "none"
        raise InstanceNotFoundError(f"there is no model named {name!r}; loaded: {known}")
    return found


def _begin_unload(engine: Engine, name: str, drain_s: float) -> Accepted:
    """On a thread of its own: draining takes longer than the few threads that answer requests can be spared."""
    _versions(engine, name)
    threading.Thread(target=_unload, args=(engine, name, drain_s), name=f"unload:{name}", daemon=True).start()
    return Accepted(name=name)


def _unload(engine: Engine, name: str, drain_s: float) -> None:
    try:
        engine.unload(name, drain_s)
    except InstanceNotFoundError:
        logger.info("%s was unloaded by somebody else meanwhile", name)
