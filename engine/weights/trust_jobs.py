"""Verifying, trusting again and signing inside a console: one at a time, in the background, with progress.

Pages start and follow these; hashing a large model takes a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from engine.job import Job, JobCancelledError, JobOwner, explain
from engine.weights.digests import Progress
from engine.weights.manifest import Changes, compare
from engine.weights.manifest_store import ManifestStore, Pin
from engine.weights.signature import SignedModel, Verification, check_signature, sign_folder
from engine.weights.trust import TrustPolicy, trust_again


class JobKind(StrEnum):
    """What a job does."""

    VERIFY = "verify"
    TRUST = "trust"
    SIGN = "sign"


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The job under way; `fraction` of the bytes, None while it is not known."""

    kind: JobKind
    folder: Path
    stage: str
    fraction: float | None
    began_at_s: float


@dataclass(frozen=True, slots=True)
class Verified:
    """A model read whole: `since_trust` is None when it was never trusted, `verification` holds its signature."""

    since_trust: Changes | None
    verification: Verification
    size_bytes: int


Result = Verified | Pin | SignedModel


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """The last job that ended: its result, or why it gave none."""

    kind: JobKind
    folder: Path
    ended_at_s: float
    took_s: float
    result: Result | None = None
    error: str | None = None


class TrustJobs(JobOwner[JobProgress]):
    """Starts jobs and follows them. One that is cancelled changes nothing."""

    def __init__(self, manifests: ManifestStore, wall: Callable[[], float] = time.time) -> None:
        super().__init__(Job("trust-job", "the job"))
        self.manifests = manifests
        self._wall = wall
        self._outcomes: dict[Path, JobOutcome] = {}

    def verify(self, folder: Path, policy: TrustPolicy) -> bool:
        """Read every byte, compare with what was trusted, and verify the signature. False when a job is under way."""
        return self._start(JobKind.VERIFY, folder, lambda report: self._verify(folder, policy, report))

    def trust(self, folder: Path) -> bool:
        """Trust the model as it is now. False when a job is under way."""
        return self._start(JobKind.TRUST, folder, lambda report: trust_again(folder, self.manifests, report))

    def sign(self, folder: Path, private_key: Path, password: str | None, certificates: Sequence[Path] = ()) -> bool:
        """Sign the model. The password is kept for as long as the job runs. False when a job is under way."""
        roots = self.manifests.link_roots
        return self._start(
            JobKind.SIGN,
            folder,
            lambda report: sign_folder(
                folder, private_key, password, certificates=certificates, link_roots=roots, on_progress=report
            ),
        )

    def outcome(self, folder: Path) -> JobOutcome | None:
        """How the last job on this model ended; None before the first."""
        return self._outcomes.get(folder.resolve())

    def _start(self, kind: JobKind, folder: Path, work: Callable[[Progress], Result]) -> bool:
        begun = JobProgress(kind, folder, "checking files", None, self._wall())
        return self._job.start(begun, lambda: self._run(begun, work))

    def _run(self, begun: JobProgress, work: Callable[[Progress], Result]) -> None:
        def report(stage: str, fraction: float | None) -> None:
            self._job.report(replace(begun, stage=stage, fraction=fraction))

        result: Result | None = None
        error: str | None = None
        try:
            result = work(report)
        except JobCancelledError:
            error = "It was cancelled; nothing was changed."
        except Exception as problem:  # noqa: BLE001 - logged and told
            error = explain(problem, f"the job {begun.kind} on {begun.folder}")
        now_s = self._wall()
        outcome = JobOutcome(begun.kind, begun.folder, now_s, now_s - begun.began_at_s, result, error)
        self._outcomes[begun.folder.resolve()] = outcome

    def _verify(self, folder: Path, policy: TrustPolicy, report: Progress) -> Verified:
        pin = self.manifests.pinned(folder)
        manifest = self.manifests.make(folder, report, is_full=True)
        return Verified(
            compare(pin.manifest.digests, manifest.digests) if pin else None,
            check_signature(folder, manifest, policy.public_keys, policy.certificates),
            manifest.size_bytes,
        )
