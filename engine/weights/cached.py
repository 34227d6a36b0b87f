"""Where a model is on this machine, the weights cache included: nothing is asked of the hub, fetched or unpacked."""

from __future__ import annotations

from dataclasses import replace

from engine.weights.cache import WeightsCache
from engine.weights.lookup import recall
from engine.weights.selection import choose_files, is_gguf
from engine.weights.snapshot import Snapshot
from engine.weights.sources import HubId, Source, find_source


def find_here(source: str, cache: WeightsCache) -> Source:
    """Find what `source` names on this machine. A hub id becomes the folder or GGUF file that loading would take from
    the cache, at the commit that was last seen, however long ago the hub was asked; it stays one where it was not
    pulled yet.

    Raises:
        WeightsError: nothing is there, or it is not a model.
    """
    found = find_source(source)
    return found if found.hub is None else _find_cached(found, found.hub, cache) or found


def _find_cached(origin: Source, hub_id: HubId, cache: WeightsCache) -> Source | None:
    repository, _is_fresh = recall(hub_id, cache)
    if repository is None:
        return None
    chosen = choose_files(hub_id.repo_id, repository.files, hub_id.gguf_name)
    gguf = chosen[0] if is_gguf(chosen) else None
    if gguf is not None and gguf.sha256 is not None and (cache.root / gguf.sha256).is_dir():
        return replace(origin, hub=None, folder=cache.root / gguf.sha256)  # unpacked: its file is needed no more
    folder = cache.snapshots.folder(Snapshot(hub_id.repo_id, repository.commit, gguf.path if gguf else None))
    if not folder.is_dir():
        return None
    if gguf is not None:
        return replace(origin, hub=None, gguf_file=folder / gguf.path)
    return replace(origin, hub=None, folder=folder)
