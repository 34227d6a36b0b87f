"""Signing a model and telling whether a signature holds, who made it, and what it covers. Everything offline.

The signature lies in the folder as `model.sig`, of a single file beside it as `NAME.sig`: an OpenSSF bundle.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from engine.errors import WeightsError
from engine.weights.atomic import write_text
from engine.weights.digests import Progress
from engine.weights.keys import describe, fingerprint_of, load_certificates, load_private_key
from engine.weights.manifest import IGNORED, SIGNATURE_NAME, Changes, Manifest, compare, list_files, make_manifest
from engine.weights.signer import BundleError, Signer

_LOADED_SUFFIXES = frozenset(
    (".safetensors", ".gguf", ".json", ".jinja", ".model", ".txt", ".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
)


@dataclass(frozen=True, slots=True)
class SignedModel:
    """A signature just made. `ignored` are the names it leaves out, `signed_s` the seconds that it took."""

    signature: Path
    signer: Signer
    manifest: Manifest
    ignored: tuple[str, ...]
    signed_s: float


@dataclass(frozen=True, slots=True)
class Verification:
    """What a signature says of the model as it is now.

    Attributes:
        signer: who made it, proved only when `is_authentic`; None when it names nobody.
        covered: files that are as they were signed.
        changes: what is not.
        ignored: files here that the signature leaves out by its own words.
        problems: why it does not hold; empty when it does.
    """

    signature: Path
    signer: Signer | None = None
    is_authentic: bool = False
    covered: tuple[str, ...] = ()
    changes: Changes = field(default_factory=Changes)
    ignored: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """The signature holds, and every file it must cover is as it was signed."""
        return self.is_authentic and not self.problems


def signature_path(model: Path) -> Path:
    """Where the signature of a folder, or of a single file, lies."""
    return model.with_name(f"{model.name}.sig") if model.is_file() else model / SIGNATURE_NAME


def sign_folder(
    folder: Path,
    private_key: Path,
    password: str | None = None,
    *,
    certificates: Sequence[Path] = (),
    link_roots: Sequence[Path] = (),
    on_progress: Progress = lambda _stage, _fraction: None,
) -> SignedModel:
    """Sign every file of the model (every byte is read) and write the signature over an older one.

    `certificates` are the certificate of the key and those between it and the root, in this order.

    Raises:
        WeightsError: the key cannot be used, a file cannot be read, or the signature cannot be written.
    """
    began_s = time.perf_counter()
    key, chain = load_private_key(private_key, password), load_certificates(certificates)
    manifest = make_manifest(folder, on_progress, link_roots=link_roots)
    has_links = any(path.is_symlink() for path in folder.rglob("*")) if folder.is_dir() else folder.is_symlink()
    name = folder.resolve().name
    from engine.weights.bundle import make_bundle

    text = make_bundle(name, manifest.digests, IGNORED if folder.is_dir() else (), has_links, key, chain)
    write_text(signature_path(folder), text, mode=0o644)
    signer = Signer(fingerprint_of(key.public_key()), describe(chain[0]) if chain else None)
    return SignedModel(signature_path(folder), signer, manifest, IGNORED, time.perf_counter() - began_s)


def verify_folder(
    folder: Path,
    public_keys: Sequence[Path] = (),
    certificates: Sequence[Path] = (),
    *,
    link_roots: Sequence[Path] = (),
    on_progress: Progress = lambda _stage, _fraction: None,
    now: datetime | None = None,
) -> Verification:
    """Whether the model's signature holds for one of the public keys, or for a certificate that goes back to one of
    `certificates`. Every byte is read, unless the signature fails before.

    Raises:
        WeightsError: a key or a file cannot be read.
    """
    before = check_signature(folder, None, public_keys, certificates, now=now)
    if not before.is_authentic:
        list_files(folder, link_roots)  # a folder that is not there is said to be so, not to be unsigned
        return before
    manifest = make_manifest(folder, on_progress, link_roots=link_roots)
    return check_signature(folder, manifest, public_keys, certificates, now=now)


def check_signature(
    folder: Path,
    manifest: Manifest | None,
    public_keys: Sequence[Path] = (),
    certificates: Sequence[Path] = (),
    *,
    now: datetime | None = None,
) -> Verification:
    """As `verify_folder`, for digests taken already; with None only the signature itself is looked at, which takes
    milliseconds.

    Raises:
        WeightsError: a key or certificate cannot be read.
    """
    signature = signature_path(folder)
    verification = Verification(signature)
    try:
        from engine.weights.bundle import claimed_signer, open_bundle, read_bundle

        bundle = read_bundle(signature)
        verification = replace(verification, signer=claimed_signer(bundle))
        signed = open_bundle(bundle, public_keys, certificates, now)
    except BundleError as error:
        return replace(verification, problems=(f"{signature} proves nothing: {error}",))
    verification = replace(verification, signer=signed.signer, is_authentic=True)
    if manifest is None:
        return verification
    ignored = tuple(path for path in manifest.digests if path not in signed.digests and _is_below(path, signed.ignored))
    actual = {path: digest for path, digest in manifest.digests.items() if path not in ignored}
    changes = compare(signed.digests, actual)
    covered = tuple(path for path in actual if actual[path] == signed.digests.get(path))
    problems = tuple(_problems(folder, changes, ignored))
    return replace(verification, covered=covered, changes=changes, ignored=ignored, problems=problems)


def read_claims(folder: Path) -> Signer | None:
    """Who the signature claims to be from; unproved. None when there is none that can be read."""
    try:
        from engine.weights.bundle import claimed_signer, read_bundle

        return claimed_signer(read_bundle(signature_path(folder)))
    except BundleError:
        return None


def _problems(folder: Path, changes: Changes, ignored: Sequence[str]) -> list[str]:
    problems = []
    if changes:
        problems.append(f"{folder} is not as it was signed: {changes}")
    read = tuple(path for path in ignored if PurePosixPath(path).suffix.lower() in _LOADED_SUFFIXES)
    if read:
        problems.append(f"{folder} has files that are loaded and that the signature leaves out: {', '.join(read[:3])}")
    return problems


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def explain(verification: Verification) -> WeightsError:
    """The error for a verification that is not good."""
    return WeightsError("; ".join(verification.problems) + ": fetch the model again, or have it signed again")
