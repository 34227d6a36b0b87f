"""Models of the hub in the cache: `hub/<org>--<name>/<commit>/`, whole or not there at all.

A model that is still arriving is `<commit>.incoming/`, locked by who fetches it, and takes its own name when its last
file is verified. Beside it stand what the hub listed for the commit (which never changes), what the folder holds
(`<commit>.json`), in `<commit>.heads/` for a while the beginnings of files that a plan was made of, and in `refs.json`
which commit a branch was at, and when that was asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.weights.atomic import write_atomically
from engine.weights.files import read_json
from engine.weights.repository import Repository, describe_repository, parse_repository
from engine.weights.sources import is_commit, parse_hub_id
from engine.weights.trouble import HubError

_INCOMING = ".incoming"
_HEADS = ".heads"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What of a model is kept in one folder: its safetensors and their companions, or one GGUF file."""

    repo_id: str
    commit: str
    gguf_name: str | None = None

    @property
    def key(self) -> str:
        return self.commit if self.gguf_name is None else f"{self.commit}+{self.gguf_name}"

    def __str__(self) -> str:
        """As a source that names it for ever."""
        return f"{self.repo_id}@{self.commit}" + (f":{self.gguf_name}" if self.gguf_name else "")


@dataclass(frozen=True, slots=True)
class Ref:
    """The commit that a branch or tag was at; `asked_s` is in seconds since the epoch."""

    commit: str
    asked_s: float


class SnapshotStore:
    """The folders of models under `root`, and what is remembered of the hub."""

    def __init__(self, root: Path) -> None:
        self._hub = root / "hub"

    def home(self, repo_id: str) -> Path:
        return self._hub / repo_id.replace("/", "--")

    def folder(self, snapshot: Snapshot) -> Path:
        return self.home(snapshot.repo_id) / snapshot.key

    def incoming(self, snapshot: Snapshot) -> Path:
        return self.home(snapshot.repo_id) / f"{snapshot.key}{_INCOMING}"

    def record(self, snapshot: Snapshot) -> Path:
        """The file that says what the folder holds; written before the folder takes its name."""
        return self.home(snapshot.repo_id) / f"{snapshot.key}.json"

    def holds(self, path: Path) -> bool:
        """Is it one of these folders, whose files are links to blobs."""
        return path.is_relative_to(self._hub)

    def scan(self) -> Iterator[tuple[Snapshot, bool]]:
        """All folders, and whether each is whole."""
        for path in sorted(self._hub.glob("*/*")):
            found = _parse_key(path.name.removesuffix(_INCOMING))
            hub_id = parse_hub_id(path.parent.name.replace("--", "/", 1))
            if found is not None and hub_id is not None and path.is_dir():
                yield Snapshot(hub_id.repo_id, *found), not path.name.endswith(_INCOMING)

    def records(self) -> Iterator[tuple[Snapshot, Path]]:
        """All records, those too whose folder is gone."""
        for path in sorted(self._hub.glob("*/*.json")):
            found = _parse_key(path.name.removesuffix(".json"))
            hub_id = parse_hub_id(path.parent.name.replace("--", "/", 1))
            if found is not None and hub_id is not None:
                yield Snapshot(hub_id.repo_id, *found), path

    def read_ref(self, repo_id: str, revision: str) -> Ref | None:
        data = read_json(self.home(repo_id) / "refs.json")
        try:
            commit, asked_s = data[revision]
        except (TypeError, KeyError, ValueError):
            return None
        is_whole = isinstance(commit, str) and is_commit(commit) and isinstance(asked_s, int | float)
        return Ref(commit, float(asked_s)) if is_whole else None

    def remember(self, repository: Repository, revision: str, now_s: float) -> None:
        """Keep what the hub said of `revision` just now."""
        home = self.home(repository.repo_id)
        home.mkdir(parents=True, exist_ok=True)
        write_atomically(self._listing(repository.repo_id, repository.commit), _json(describe_repository(repository)))
        if not is_commit(revision):
            known: Any = read_json(home / "refs.json")
            refs = known if isinstance(known, dict) else {}
            write_atomically(home / "refs.json", _json({**refs, revision: [repository.commit, now_s]}))

    def read_listing(self, repo_id: str, commit: str) -> Repository | None:
        """What the hub listed for the commit; None where nobody asked, or the file is not whole."""
        try:
            repository = parse_repository(repo_id, read_json(self._listing(repo_id, commit)))
        except HubError:
            return None
        return repository if repository.commit == commit else None

    def read_head(self, repository: Repository, path: str, since_s: float) -> bytes | None:
        """What was kept of the beginning of a file after `since_s`, in seconds since the epoch; None where nothing
        was."""
        file = self._heads(repository) / path
        try:
            return file.read_bytes() if file.stat().st_mtime > since_s else None
        except FileNotFoundError:
            return None

    def keep_head(self, repository: Repository, path: str, content: bytes) -> None:
        """Keep the beginning of a file that lies at the top of the repository."""
        file = self._heads(repository) / path
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)

    def clear_heads(self, until_s: float) -> None:
        """Forget the beginnings of models that were kept until then."""
        for folder in self._hub.glob(f"*/*{_HEADS}"):
            with suppress(FileNotFoundError):  # another process clears too
                if folder.stat().st_mtime <= until_s:
                    shutil.rmtree(folder, ignore_errors=True)

    def _heads(self, repository: Repository) -> Path:
        return self.home(repository.repo_id) / f"{repository.commit}{_HEADS}"

    def _listing(self, repo_id: str, commit: str) -> Path:
        return self.home(repo_id) / f"{commit}.listing"


def _parse_key(name: str) -> tuple[str, str | None] | None:
    commit, plus, gguf_name = name.partition("+")
    if not is_commit(commit) or (plus and not gguf_name.endswith(".gguf")):
        return None
    return commit, gguf_name or None


def _json(data: object) -> bytes:
    return json.dumps(data, indent=1).encode()
