"""Having a model of the hub here before anything is loaded: no load time then holds a download, no other load waits for
it, and all variants are of one commit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.download import Progress
from engine.weights.hub import Hub
from engine.weights.lease import Lease
from engine.weights.sources import HubId, find_source


class _LeftPackedError(Exception):
    """The GGUF file is here; it is unpacked where models load one at a time."""


def fetch_from_hub(source: str, cache: WeightsCache, on_progress: Progress) -> tuple[str, Lease]:
    """Fetch what of a hub's model is not in the cache: the source that names its commit for ever, and what keeps it in
    the cache. A source that is not at the hub is left as it is.

    Raises:
        WeightsError: there is no such model, or it cannot be fetched; and whatever `on_progress` raises.
    """
    hub_id = find_source(source).hub
    if hub_id is None:
        return source, Lease()
    lease = Lease()
    try:
        lease = acquire(source, cache, _leave_packed, on_progress, hub=Hub.from_environment()).lease
    except _LeftPackedError:
        on_progress("fetched", 1.0)
    return str(_pin(hub_id, cache)), lease


def _leave_packed(_file: Path, _folder: Path, _on_progress: Progress) -> None:
    raise _LeftPackedError


def _pin(hub_id: HubId, cache: WeightsCache) -> HubId:
    ref = None if hub_id.is_pinned else cache.snapshots.read_ref(hub_id.repo_id, hub_id.revision)
    return hub_id if ref is None else replace(hub_id, revision=ref.commit)
