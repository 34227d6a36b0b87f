"""May this model be loaded, as far as its files' digests and its signature tell?

Digests are pinned the first time a model is trusted and compared every time after. Whether a difference, or a
signature that does not hold, only warns or refuses is the policy's, one for each kind of source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from engine.errors import WeightsError
from engine.weights.digests import Progress
from engine.weights.manifest import SINGLE_FILE, Changes, compare
from engine.weights.manifest_store import ManifestStore, Pin
from engine.weights.remote_code import find_pickles
from engine.weights.signature import Verification, check_signature


class SignatureMode(StrEnum):
    """What a signature is for: not looked at, warned about, or asked for before anything is loaded."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


class SourceKind(StrEnum):
    """Where a model comes from; each kind has a policy."""

    SAMPLE = "sample"
    FOLDER = "folder"
    GGUF = "gguf"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class TrustPolicy:
    """Whose signatures count: those of `public_keys` (PEM files), and those of certificates that go back to one of
    `certificates` (PEM files of root certificates)."""

    mode: SignatureMode = SignatureMode.OFF
    public_keys: tuple[Path, ...] = ()
    certificates: tuple[Path, ...] = ()


NO_POLICY = TrustPolicy()


@dataclass(frozen=True, slots=True)
class TrustFacts:
    """What was found out about a model.

    Attributes:
        since_trust: against what was pinned; None when it is trusted for the first time.
        against_source: the files whose digests are not those that the source published.
        verification: None when the signature was not looked at.
        pickles: pickled files in the folder, which are not loaded.
    """

    folder: Path
    since_trust: Changes | None
    against_source: tuple[str, ...] = ()
    verification: Verification | None = None
    pickles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """Sentences with the file, what differs, and the remedy. Nothing is loaded while there are `refusals`."""

    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TrustResult:
    """A model that may be loaded, with what to tell about it."""

    folder: Path
    mode: SignatureMode
    pin: Pin
    is_first: bool
    changes: Changes = field(default_factory=Changes)
    verification: Verification | None = None
    warnings: tuple[str, ...] = ()


def policy_for(kind: SourceKind, policies: Mapping[SourceKind, TrustPolicy]) -> TrustPolicy:
    """The policy of a kind of source; without one, digests are pinned and signatures not looked at."""
    return policies.get(kind, NO_POLICY)


def judge_trust(policy: TrustPolicy, facts: TrustFacts) -> Judgement:
    """What stands against loading, and what is only to be told.

    A file that is not what its source published is damaged or forged, and refused under every policy. A change since
    the model was trusted may be the user's own: it refuses under `enforce` alone, as does the signature.
    """
    refusals = [
        f"{facts.folder / path} is not the file that its source published (SHA-256 differs): fetch it again"
        for path in facts.against_source
    ]
    doubts = [*_doubt_changes(facts), *_doubt_signature(policy, facts)]
    is_enforced = policy.mode is SignatureMode.ENFORCE
    told = [
        f"{facts.folder / name} is a pickle, which can run code when opened: it is not loaded" for name in facts.pickles
    ]
    return Judgement(
        refusals=tuple(refusals + doubts if is_enforced else refusals),
        warnings=tuple(told if is_enforced else doubts + told),
    )


def check_trust(
    folder: Path,
    policy: TrustPolicy,
    manifests: ManifestStore,
    on_progress: Progress,
    known: Mapping[str, str] | None = None,
) -> TrustResult:
    """Look at the model's files and pin them when nothing is pinned yet; `folder` may be a single file.

    `known` are SHA-256 by path as the source published them, of files that need not all be here. Under `enforce` every
    byte is read each time, otherwise only what looks touched since it was last read.

    Raises:
        WeightsError: it must not be loaded, or a file, key or pin cannot be read.
    """
    pin = manifests.pinned(folder)
    if policy.mode is SignatureMode.ENFORCE:  # in milliseconds, before every byte is read
        claimed = check_signature(folder, None, policy.public_keys, policy.certificates)
        _refuse(judge_trust(policy, TrustFacts(folder, None, verification=claimed)))
    manifest = manifests.make(folder, on_progress, is_full=policy.mode is SignatureMode.ENFORCE)
    verification = None
    if policy.mode is not SignatureMode.OFF:
        verification = check_signature(folder, manifest, policy.public_keys, policy.certificates)
    digests = manifest.digests
    facts = TrustFacts(
        folder,
        compare(pin.manifest.digests, digests) if pin else None,
        tuple(sorted(path for path, digest in (known or {}).items() if digests.get(path, digest) != digest)),
        verification,
        find_pickles(folder) if folder.is_dir() else (),
    )
    judgement = judge_trust(policy, facts)
    _refuse(judgement)
    return TrustResult(
        folder,
        policy.mode,
        pin or manifests.pin(folder, manifest),
        pin is None,
        facts.since_trust or Changes(),
        verification,
        judgement.warnings,
    )


def trust_again(folder: Path, manifests: ManifestStore, on_progress: Progress) -> Pin:
    """Trust the model as it is now; every byte is read.

    Raises:
        WeightsError: a file cannot be read, or the store cannot be written.
    """
    return manifests.pin(folder, manifests.make(folder, on_progress, is_full=True))


def _refuse(judgement: Judgement) -> None:
    if judgement.refusals:
        raise WeightsError("; ".join(judgement.refusals))


def _doubt_changes(facts: TrustFacts) -> list[str]:
    if not facts.since_trust:
        return []
    said = str(facts.since_trust).replace(f"{SINGLE_FILE} changed", "it changed")
    return [
        f"{facts.folder} is not as it was trusted: {said}; fetch it again, or trust it again if the change is yours "
        "(on the page Weights)"
    ]


def _doubt_signature(policy: TrustPolicy, facts: TrustFacts) -> list[str]:
    if policy.mode is SignatureMode.OFF:
        return []
    if not policy.public_keys and not policy.certificates:
        return [
            f"{facts.folder} cannot be verified: signatures are asked for ({policy.mode}) and no public key or "
            "certificate is set; set one, or set the mode to off"
        ]
    if facts.verification is None:
        return [f"{facts.folder} was not verified: verify it"]
    return [f"{problem}; fetch the model again, or have it signed" for problem in facts.verification.problems]
