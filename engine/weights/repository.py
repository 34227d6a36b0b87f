"""A model's files as the hub lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from engine.weights.containment import check_name
from engine.weights.sources import is_commit
from engine.weights.trouble import HubError, Trouble

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at the hub. Large ones have a SHA-256, small ones git's SHA-1; None where a mirror hides it."""

    path: str
    size_bytes: int | None
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True, slots=True)
class Repository:
    """All files of a model at one commit."""

    repo_id: str
    commit: str
    files: tuple[RemoteFile, ...]


def parse_repository(repo_id: str, data: object) -> Repository:
    """The hub's description of a model, with nothing believed: digests end up in paths.

    Raises:
        WeightsError: it is of another shape, or lists a file that leads out of its folder.
    """
    try:
        fields: Any = data
        commit, siblings = fields["sha"], list(fields["siblings"])
        if not isinstance(commit, str) or not is_commit(commit):
            raise ValueError("no commit")
        files = tuple(_parse_file(repo_id, sibling) for sibling in siblings)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise HubError(f"the hub describes {repo_id} in a way that cannot be read", Trouble.MALFORMED) from error
    if len({file.path for file in files}) != len(files):
        raise HubError(f"the hub lists a file of {repo_id} twice: it is refused whole", Trouble.MALFORMED)
    return Repository(repo_id, commit, files)


def describe_repository(repository: Repository) -> dict[str, object]:
    """The inverse of `parse_repository`."""
    return {
        "sha": repository.commit,
        "siblings": [
            {"rfilename": file.path, "size": file.size_bytes, "blobId": file.git_sha1}
            | ({"lfs": {"sha256": file.sha256}} if file.sha256 else {})
            for file in repository.files
        ],
    }


def _parse_file(repo_id: str, sibling: Any) -> RemoteFile:
    path, size, lfs = sibling["rfilename"], sibling.get("size"), sibling.get("lfs") or {}
    if not isinstance(path, str) or not (size is None or (type(size) is int and size >= 0)):
        raise ValueError("a file without a name, or of no size")
    sha256, git_sha1 = lfs.get("sha256"), sibling.get("blobId")
    if sha256 is not None and _SHA256.fullmatch(sha256) is None:
        raise ValueError("no SHA-256")
    if git_sha1 is not None and not is_commit(git_sha1):
        raise ValueError("no SHA-1")
    # Git's digest of a large file is that of its pointer, and says nothing of the content.
    return RemoteFile(check_name(path, repo_id), size, sha256, None if sha256 else git_sha1)
