"""What each command of `python -m engine.models` does. Modules are imported where they are needed: `list` must not
wait for torch."""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from engine.config import Settings
from engine.errors import WeightsError
from engine.models.spec import ModelSpec, Quantization
from engine.weights.cache import WeightsCache
from engine.weights.store import open_weights

OnProgress = Callable[[str, float | None], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command found, as text and as plain data."""

    text: str
    data: Any
    is_good: bool = True


@dataclass(frozen=True, slots=True)
class Task:
    """What a command is given."""

    options: argparse.Namespace
    settings: Settings
    on_progress: OnProgress

    @property
    def cache(self) -> WeightsCache:
        return open_weights(self.settings).cache


Command = Callable[[Task], Outcome]
GOOD, BAD = 0, 2


def list_cache(task: Task) -> Outcome:
    """Everything in the weights cache, the last used first."""
    entries = task.cache.entries()
    data = [
        {
            "id": entry.id,
            "kind": entry.kind.value,
            "name": entry.name,
            "revision": entry.revision,
            "size_bytes": entry.size_bytes,
            "last_used_s": entry.last_used_s,
            "is_in_use": entry.is_in_use,
            "path": str(entry.path),
        }
        for entry in entries
    ]
    lines = [
        f"{entry.size_bytes / 1e9:8.3f} GB  {_moment(entry.last_used_s)}  {entry.kind.value:<10}  {entry.name}"
        f"{f' {entry.revision[:12]}' if entry.revision else ''}{' (in use)' if entry.is_in_use else ''}"
        for entry in entries
    ]
    return Outcome("\n".join(lines) or "the weights cache is empty", data)


def pull(task: Task) -> Outcome:
    """Have a model in the cache."""
    from engine.weights.hub import Hub
    from engine.weights.pull import pull as pull_source

    pulled = pull_source(task.options.source, task.cache, Hub.from_environment(), task.on_progress)
    words = f"{pulled.name} at {pulled.revision}, {pulled.size_bytes / 1e9:.3f} GB, in {pulled.folder}"
    return Outcome(words, {**asdict(pulled), "folder": str(pulled.folder)})


def plan(task: Task) -> Outcome:
    """Whether a model fits as asked, and if not how it would."""
    from contextlib import closing

    from engine.models.plan import Verdict
    from engine.models.plan_text import to_dict, to_text
    from engine.models.planner import Planner
    from engine.telemetry.nvml import Nvml

    options = task.options
    spec = ModelSpec(
        options.source,
        device=options.device,
        dtype=options.dtype,
        quantization=_quantization(options),
        context_length=options.context,
        max_running=options.concurrency,
        attention=options.attention,
    )
    with closing(Nvml()) as nvml, task.cache.writing():
        planner = Planner(task.settings, nvml, task.cache)
        download = planner.download(spec.source, task.on_progress)
        planned = planner.plan(spec, on_progress=task.on_progress)
    text = to_text(planned) if download is None else f"{to_text(planned)}\nNot here yet: {download}"
    return Outcome(text, to_dict(planned, download), planned.verdict is Verdict.FITS)


def verify(task: Task) -> Outcome:
    """A folder's signature, or every file of the cache."""
    return _verify_cache(task) if task.options.folder is None else _verify_folder(task)


def _verify_cache(task: Task) -> Outcome:
    from engine.weights.upkeep import verify as verify_cache

    cache = task.cache
    damages = verify_cache(cache, task.on_progress)
    data = {
        "is_good": not damages,
        "num_entries": len(cache.entries()),
        "damages": [{"id": item.entry_id, "path": item.path, "reason": item.reason} for item in damages],
    }
    lines = [f"{item.entry_id}: {item.path}: {item.reason}" for item in damages]
    good = f"the weights cache is as it should be ({data['num_entries']} entries)"
    return Outcome("\n".join(lines) or good, data, not damages)


def _verify_folder(task: Task) -> Outcome:
    from engine.weights.signature import verify_folder

    options = task.options
    if not options.public_key and not options.certificate:
        raise WeightsError("nothing to verify the signature with: give --public-key FILE or --certificate FILE")
    found = verify_folder(
        options.folder, options.public_key or (), options.certificate or (), on_progress=task.on_progress
    )
    data = {
        "is_good": found.is_good,
        "is_authentic": found.is_authentic,
        "signer": None if found.signer is None else found.signer.fingerprint,
        "signature": str(found.signature),
        "num_covered": len(found.covered),
        "changes": asdict(found.changes),
        "ignored": list(found.ignored),
        "problems": list(found.problems),
    }
    good = f"{options.folder} is as it was signed: {len(found.covered)} files, by key {data['signer']}"
    return Outcome("\n".join(found.problems) or good, data, found.is_good)


def sign(task: Task) -> Outcome:
    """Sign a folder."""
    from engine.weights.keys import find_password, is_encrypted
    from engine.weights.signature import sign_folder

    options = task.options
    signed = sign_folder(
        options.folder,
        options.private_key,
        find_password(_ask_password if is_encrypted(options.private_key) else None),
        certificates=options.certificate or (),
        on_progress=task.on_progress,
    )
    data = {
        "signature": str(signed.signature),
        "signer": signed.signer.fingerprint,
        "num_files": len(signed.manifest.digests),
        "signed_s": signed.signed_s,
    }
    return Outcome(
        f"{signed.signature}: {data['num_files']} files signed by key {data['signer']}, in {signed.signed_s:.1f} s",
        data,
    )


def keygen(task: Task) -> Outcome:
    """Make a key pair to sign with."""
    from engine.weights.keys import PASSWORD_VARIABLE, find_password, generate_key_pair

    options = task.options
    password = None if options.no_password else find_password(_ask_new_password)
    if password is None and not options.no_password:
        raise WeightsError(
            f"the new key has no password: set {PASSWORD_VARIABLE}, type one in, or say --no-password for a key that "
            "whoever copies it can sign with"
        )
    made = generate_key_pair(options.private_key.expanduser(), password)
    data = {
        "private_key": str(made.private_key),
        "public_key": str(made.public_key),
        "fingerprint": made.fingerprint,
        "has_password": password is not None,
    }
    return Outcome(f"{made.private_key} (private), {made.public_key} (public): key {made.fingerprint}", data)


def quantize(task: Task) -> Outcome:
    """Load a model quantized, and save it so."""
    from engine.models.quantizing import quantize_to

    options = task.options
    spec = ModelSpec(options.source, device=options.device, dtype=options.dtype, quantization=_quantization(options))
    made = quantize_to(options.output, spec, open_weights(task.settings), task.on_progress)
    ratio = f"{made.size_ratio:.0%} of its weights in bfloat16"
    words = f"{made.name} as {options.scheme}: {made.size_bytes / 1e9:.3f} GB ({ratio}) in {made.folder}"
    return Outcome(words, {**asdict(made), "folder": str(made.folder)})


def _quantization(options: argparse.Namespace) -> Quantization | None:
    """What the options say of quantization: the scheme's good default, and what was named instead of it."""
    from engine.models.schemes import DEFAULT_GROUP_SIZE, Ability, default_quantization
    from engine.models.spec import Granularity

    details = (options.granularity, options.group_size, options.affine, options.symmetric, options.keep)
    if options.scheme is None:
        if any(details):
            raise WeightsError("details of a quantization without one: name its scheme with --quantization")
        return None
    chosen = default_quantization(options.scheme, Ability("cuda" if options.device == "cuda" else "cpu"))
    if options.granularity is not None:
        size = DEFAULT_GROUP_SIZE if options.granularity is Granularity.GROUP else None
        chosen = replace(chosen, granularity=options.granularity, group_size=size)
    if options.group_size is not None:
        chosen = replace(chosen, group_size=options.group_size)
    if options.affine or options.symmetric:
        chosen = replace(chosen, is_symmetric=options.symmetric)
    return chosen if options.keep is None else replace(chosen, keep=tuple(options.keep))


def _ask_password() -> str:
    """The password typed in; empty where nobody can type."""
    return getpass.getpass("Password of the private key: ") if sys.stdin.isatty() else ""


def _ask_new_password() -> str:
    """The password typed in twice; empty where nobody can type."""
    if not sys.stdin.isatty():
        return ""
    password = getpass.getpass("Password of the new key: ")
    if password != getpass.getpass("The same again: "):
        raise WeightsError("the two passwords differ: type the same one twice")
    return password


def _moment(epoch_s: float) -> str:
    return f"{datetime.fromtimestamp(epoch_s, UTC):%Y-%m-%d %H:%MZ}"
