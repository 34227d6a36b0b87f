"""Verifying the weights cache inside a console, and mending what was found: in the background, one at a time.

Reading a large cache takes minutes; the pages start and follow it here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from engine.clock import Clock, SystemClock
from engine.job import Job, JobOwner
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from engine.weights.inventory import CacheEntry, EntryKind
from engine.weights.preloading import convert_when_needed
from engine.weights.upkeep import Damage, discard, verify


@dataclass(frozen=True, slots=True)
class CacheProgress:
    """What is under way: `fraction` of the bytes, None while it is not known."""

    stage: str
    fraction: float | None
    began_at_s: float


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged file of `model`. `can_fetch` says that the hub has it; otherwise the model is removed from the cache,
    and unpacked from its GGUF file when it is next loaded."""

    damage: Damage
    model: str
    can_fetch: bool


@dataclass(frozen=True, slots=True)
class CacheReport:
    """How the cache was when it was last read whole, less what was mended since.

    `size_bytes` were compared with their digests. `without_digests` names the models that have none, unpacked before
    digests were kept: of them only the headers were checked.
    """

    ended_at_s: float
    took_s: float
    num_models: int
    size_bytes: int
    damaged: tuple[Damaged, ...]
    without_digests: tuple[str, ...] = ()


class CacheJobs(JobOwner[CacheProgress]):
    """Starts work on the cache and follows it. Of a verification that is cancelled nothing is kept, of a download what
    has arrived."""

    def __init__(
        self, cache: WeightsCache, clock: Clock | None = None, open_hub: Callable[[], Hub] = Hub.from_environment
    ) -> None:
        super().__init__(Job("cache-job", "the work on the weights cache"))
        self._cache = cache
        self._clock: Clock = clock or SystemClock()
        self._open_hub = open_hub
        self._report: CacheReport | None = None

    def verify(self) -> bool:
        """Read everything and compare it with its digests. False when something is under way."""
        return self._start("verifying", self._verify)

    def mend(self, damaged: Damaged) -> bool:
        """Take the damaged file out of the cache and fetch it, and it alone, again; or remove the model where it
        cannot be fetched. False when something is under way."""
        return self._start(f"mending {damaged.model}", partial(self._mend, damaged))

    def report(self) -> CacheReport | None:
        """The last verification; None before the first."""
        return self._report

    def _start(self, stage: str, work: Callable[[CacheProgress], None]) -> bool:
        begun = CacheProgress(stage, None, self._clock.wall())
        return self._job.start(begun, partial(work, begun))

    def _tell(self, begun: CacheProgress, stage: str, fraction: float | None) -> None:
        self._job.report(replace(begun, stage=stage, fraction=fraction))

    def _verify(self, begun: CacheProgress) -> None:
        entries = [entry for entry in self._cache.entries() if entry.kind is not EntryKind.UNFINISHED]
        hashed = [entry for entry in entries if entry.record is not None]
        damages = verify(self._cache, partial(self._tell, begun))
        now_s = self._clock.wall()
        self._report = CacheReport(
            ended_at_s=now_s,
            took_s=now_s - begun.began_at_s,
            num_models=len(entries),
            size_bytes=sum({inode: size for entry in hashed for inode, size in entry.files.items()}.values()),
            damaged=tuple(_describe(damage, entries) for damage in damages),
            without_digests=tuple(_name(entry) for entry in entries if entry.record is None),
        )

    def _mend(self, damaged: Damaged, begun: CacheProgress) -> None:
        damage = damaged.damage
        discard(self._cache, damage.folder, damage.path)
        self._forget(damaged)
        if damaged.can_fetch:  # the id of a download is a source that names it
            tell = partial(self._tell, begun)
            acquire(damage.entry_id, self._cache, convert_when_needed, tell, hub=self._open_hub()).lease.close()

    def _forget(self, mended: Damaged) -> None:
        """What is gone from the cache is damaged no more; of a model that is removed, all of its files."""
        report = self._report
        if report is not None:
            left = tuple(item for item in report.damaged if not _goes_with(item, mended))
            self._report = replace(report, damaged=left)


def _describe(damage: Damage, entries: Iterable[CacheEntry]) -> Damaged:
    """What the list of the cache says of its model; one that came after it was read is told by its id alone."""
    entry = next((entry for entry in entries if entry.id == damage.entry_id), None)
    if entry is None:
        return Damaged(damage, damage.entry_id, can_fetch=False)
    return Damaged(damage, _name(entry), entry.kind is EntryKind.DOWNLOAD)


def _name(entry: CacheEntry) -> str:
    return f"{entry.name} {(entry.revision or '')[:12]}".strip()


def _goes_with(item: Damaged, mended: Damaged) -> bool:
    is_same_model = item.damage.folder == mended.damage.folder
    return is_same_model and (not mended.can_fetch or item.damage.path == mended.damage.path)
