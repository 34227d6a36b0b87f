"""The bodies and answers of checking signatures."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field

from engine.api.schemas import Body
from engine.weights.keys import CertificateInfo
from engine.weights.manifest import Changes
from engine.weights.trust_jobs import JobKind, JobOutcome, JobProgress, Verified


class VerifyBody(Body):
    """What to check, and whose signatures count: where no key and no certificate is given, those of the settings. All
    paths are the server's."""

    folder: Path = Field(description="a model folder or a .gguf file, absolute")
    public_keys: tuple[Path, ...] = Field((), description="PEM files")
    certificates: tuple[Path, ...] = Field((), description="PEM files of roots")


class VerifyReport(BaseModel):
    """A model that was read whole. `changes` are since it was signed, `since_trust` since it was trusted here."""

    is_good: bool = Field(description="the signature holds, and every file it must cover is as it was signed")
    is_authentic: bool = Field(description="the signature is of one of the keys; who signed is proved by that alone")
    signer: str | None = Field(description="SHA-256 of the public key that the signature names")
    certificate: CertificateInfo | None = Field(description="what the signer's certificate says")
    signature: Path
    num_covered: int = Field(description="files that are as they were signed")
    changes: Changes
    since_trust: Changes | None = Field(description="null where it was never trusted here")
    ignored: tuple[str, ...] = Field(description="files that the signature leaves out by its own words")
    problems: tuple[str, ...] = Field(description="why it does not hold, a sentence each")
    size_bytes: int
    took_s: float
    ended_at_s: float = Field(description="seconds since the epoch")


class VerifyAnswer(BaseModel):
    """How checking a folder goes, or went."""

    progress: JobProgress | None = Field(description="what is under way")
    report: VerifyReport | None = Field(description="what the last one came to")
    error: str | None = Field(description="why the last one broke off, or that it was cancelled")

    @classmethod
    def of(cls, progress: JobProgress | None, outcome: JobOutcome | None) -> VerifyAnswer:
        """From what is under way and how the last job on the folder ended, where that was to verify it."""
        if outcome is None or outcome.kind is not JobKind.VERIFY:
            return cls(progress=progress, report=None, error=None)
        found = outcome.result
        report = _report(found, outcome) if isinstance(found, Verified) else None
        return cls(progress=progress, report=report, error=outcome.error)


def _report(found: Verified, outcome: JobOutcome) -> VerifyReport:
    checked = found.verification
    return VerifyReport(
        is_good=checked.is_good,
        is_authentic=checked.is_authentic,
        signer=None if checked.signer is None else checked.signer.fingerprint,
        certificate=None if checked.signer is None else checked.signer.certificate,
        signature=checked.signature,
        num_covered=len(checked.covered),
        changes=checked.changes,
        since_trust=found.since_trust,
        ignored=checked.ignored,
        problems=checked.problems,
        size_bytes=found.size_bytes,
        took_s=outcome.took_s,
        ended_at_s=outcome.ended_at_s,
    )
