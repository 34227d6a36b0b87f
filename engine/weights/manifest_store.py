"""Manifests pinned at first trust, one file a model, and the digests of the files hashed so far.

Whoever can write this folder can change what is trusted: it belongs to the console's user alone.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.atomic import write_text
from engine.weights.digests import DigestMemo, Progress
from engine.weights.manifest import Changes, Manifest, canonical_json, list_files, make_manifest, parse_manifest
from engine.weights.strict_json import parse_json

_PIN_SUFFIX = ".pin.json"
_MEMO_NAME = "digests.json"
_MAX_PIN_BYTES = 64 << 20
_KEYS = {"first_trusted_at_s", "manifest", "root", "trusted_at_s"}


@dataclass(frozen=True, slots=True)
class Pin:
    """A model as it was trusted. Times count seconds since the epoch; the first is kept when it is trusted again."""

    root: Path
    first_trusted_at_s: float
    trusted_at_s: float
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be told of a pinned model without reading it: `changes` are sure; `untold` are files that have their
    length but were touched since they were last hashed."""

    changes: Changes
    untold: tuple[str, ...]


class ManifestStore:
    """Pins below `root`. Every method may be called from any thread.

    Files of models may be links into `link_roots`; by default that is the folder around `root`, the weights cache.
    """

    def __init__(
        self, root: Path, link_roots: Sequence[Path] | None = None, wall: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self.link_roots = (root.parent,) if link_roots is None else tuple(link_roots)
        self._wall = wall
        self._memo = DigestMemo(root / _MEMO_NAME)

    def make(self, model: Path, on_progress: Progress, is_full: bool) -> Manifest:
        """The manifest of the model as it is now; `is_full` reads every byte, otherwise only the files touched since
        they were last read.

        Raises:
            WeightsError: a file cannot be read, or a link leads out.
        """
        if not is_full:
            return make_manifest(model, on_progress, self._memo, self.link_roots)
        return make_manifest(model, on_progress, None, self.link_roots)

    def pinned(self, model: Path) -> Pin | None:
        """What was trusted of this model; None when it never was.

        Raises:
            WeightsError: the pin cannot be read.
        """
        file = self._file_of(model)
        try:
            if file.stat().st_size > _MAX_PIN_BYTES:
                raise WeightsError(
                    f"{file} has more than {_MAX_PIN_BYTES:,} bytes: trust the model again to replace it"
                )
            return _parse_pin(file.read_bytes(), file)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise WeightsError(f"{file} cannot be read: {error.strerror or error}") from error

    def pin(self, model: Path, manifest: Manifest) -> Pin:
        """Trust the model as `manifest` has it from now on.

        Raises:
            WeightsError: the store cannot be written.
        """
        now_s = float(self._wall())
        try:
            before = self.pinned(model)
        except WeightsError:  # unreadable: this one replaces it
            before = None
        pin = Pin(model.resolve(), before.first_trusted_at_s if before else now_s, now_s, manifest)
        table = {
            "root": str(pin.root),
            "first_trusted_at_s": pin.first_trusted_at_s,
            "trusted_at_s": pin.trusted_at_s,
            "manifest": parse_json(manifest.to_json()),
        }
        write_text(self._file_of(model), canonical_json(table))
        return pin

    def forget(self, model: Path) -> None:
        """The next check is the first again."""
        self._file_of(model).unlink(missing_ok=True)

    def glance(self, model: Path, pin: Pin) -> Glance:
        """How the model differs from its pin, as far as lengths and the digests known so far tell. Reads no weights.

        Raises:
            WeightsError: the folder cannot be listed, or a link leads out.
        """
        files = list_files(model, self.link_roots)
        expected = {file.path: file for file in pin.manifest.files}
        known = self._memo.known(list(files.values()))
        common = [path for path in files if path in expected]
        changed = [
            path
            for path in common
            if files[path].stat().st_size != expected[path].size_bytes
            or known.get(files[path], expected[path].sha256) != expected[path].sha256
        ]
        return Glance(
            Changes(
                tuple(changed),
                tuple(path for path in expected if path not in files),
                tuple(path for path in files if path not in expected),
            ),
            tuple(path for path in common if files[path] not in known and path not in changed),
        )

    def _file_of(self, model: Path) -> Path:
        return self.root / f"{hashlib.sha256(str(model.resolve()).encode()).hexdigest()[:32]}{_PIN_SUFFIX}"


def _parse_pin(raw: bytes, file: Path) -> Pin:
    try:
        table: Any = parse_json(raw)
        if not isinstance(table, dict) or set(table) != _KEYS or not isinstance(table["root"], str):
            raise ValueError(f"it is not a table of {', '.join(sorted(_KEYS))}")
        first_s, last_s = table["first_trusted_at_s"], table["trusted_at_s"]
        if not all(isinstance(moment, float) and math.isfinite(moment) for moment in (first_s, last_s)):
            raise ValueError("its times are not numbers")
        return Pin(Path(table["root"]), first_s, last_s, parse_manifest(canonical_json(table["manifest"]), file))
    except (ValueError, OverflowError, RecursionError) as error:
        raise WeightsError(f"{file} cannot be read as a pin: {error}; trust the model again to replace it") from error
