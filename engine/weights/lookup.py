"""Which commit a hub id stands for, and what the hub lists for it: asked, or remembered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from engine.weights.repository import Repository
from engine.weights.snapshot import Ref
from engine.weights.sources import HubId
from engine.weights.trouble import HubError, Trouble

Progress = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Found:
    """What the hub lists. `ask()` is the hub, if it can be reached now: to be called before anything is fetched, so
    that a machine that is offline hears so once and at once, not after the retries of a download.

    Raises (ask):
        HubError: it cannot.
    """

    repository: Repository
    ask: Callable[[], Hub]


def look_up(hub_id: HubId, cache: WeightsCache, hub: Hub, on_progress: Progress) -> Found:
    """Find the commit and its files. A commit is asked for once and for ever, a branch again when what is known is
    older than the cache's time-to-live; where the hub cannot be asked then, what is known goes on being used.

    Raises:
        HubError: nothing is known and the hub cannot be asked, or the hub refuses.
    """
    known, is_fresh = recall(hub_id, cache)
    if known is not None and is_fresh:
        return Found(known, lambda: _ask_again(hub_id, known, hub, on_progress))
    try:
        repository = _ask(hub_id.repo_id, hub_id.revision, hub, on_progress)
    except HubError as error:
        trouble = explain(error, hub_id, known)
        if known is None or not (error.is_temporary or error.trouble is Trouble.OFFLINE):
            raise trouble from error
        on_progress(f"the hub gives no answer: using commit {known.commit[:12]}, which is here", None)
        return Found(known, lambda: _raise(trouble))
    cache.snapshots.remember(repository, hub_id.revision, cache.clock.wall())
    return Found(repository, lambda: hub)


def recall(hub_id: HubId, cache: WeightsCache) -> tuple[Repository | None, bool]:
    """What the hub last listed for the id, None where it was never asked, and whether that is still to be believed."""
    if hub_id.is_pinned:
        return cache.snapshots.read_listing(hub_id.repo_id, hub_id.revision), True
    ref = cache.snapshots.read_ref(hub_id.repo_id, hub_id.revision)
    if ref is None:
        return None, False
    known = cache.snapshots.read_listing(hub_id.repo_id, ref.commit)
    return known, is_fresh(ref, cache.clock.wall(), cache.metadata_ttl_s)


def is_fresh(ref: Ref, now_s: float, ttl_s: float) -> bool:
    """Is what the hub said still to be believed; not so when the clock was put back."""
    return 0.0 <= now_s - ref.asked_s < ttl_s


def explain(error: HubError, hub_id: HubId, known: Repository | None) -> HubError:
    """The error with what it means for this id and what can be done."""
    if error.trouble in (Trouble.OFFLINE, Trouble.UNREACHABLE, Trouble.BROKEN):
        remedy = "unset it" if error.trouble is Trouble.OFFLINE else "connect, set HF_ENDPOINT to a mirror within reach"
        message = f"{hub_id} is not in the weights cache, and {error}: {remedy}, or give the path of a folder with it"
    else:
        message = str(error)
        if known is not None and not hub_id.is_pinned:
            message += f"; the commit that was fetched before loads as {hub_id.repo_id}@{known.commit}"
    return HubError(message, error.trouble, error.retry_after_s)


def _ask(repo_id: str, revision: str, hub: Hub, on_progress: Progress) -> Repository:
    return hub.describe(repo_id, revision, lambda: on_progress(f"asking {hub.endpoint} for {repo_id}", None))


def _ask_again(hub_id: HubId, known: Repository, hub: Hub, on_progress: Progress) -> Hub:
    try:
        _ask(hub_id.repo_id, known.commit, hub, on_progress)
    except HubError as error:
        raise explain(error, hub_id, None) from error
    return hub


def _raise(error: HubError) -> Hub:
    raise error
