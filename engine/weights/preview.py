"""A model of the hub before it is pulled: how much would be downloaded, and what its headers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import WeightsError
from engine.weights.cache import WeightsCache
from engine.weights.cached import find_here
from engine.weights.fetch import Wanted, bytes_to_fetch
from engine.weights.files import OpenFile
from engine.weights.gguf_header import GgufHeader, parse_gguf_header
from engine.weights.heads import HeadReader
from engine.weights.hub import Hub
from engine.weights.lookup import look_up
from engine.weights.safetensors_header import check_header
from engine.weights.selection import choose_files, is_gguf
from engine.weights.snapshot import Snapshot
from engine.weights.sources import HubId, Source
from engine.weights.transfer import describe_size

Progress = Callable[[str, float | None], None]

_MAX_TEXT_BYTES = 4 << 20  # the largest config known has a twentieth of it


@dataclass(frozen=True, slots=True)
class Preview:
    """What a plan needs of the files of `repo_id`: the small ones that were asked for and are there, and the checked
    headers of its safetensors files; or the header of its GGUF file and nothing else."""

    repo_id: str
    texts: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    gguf: GgufHeader | None = None


@dataclass(frozen=True, slots=True)
class DownloadSize:
    """What a pull would download. Sizes are None where the hub gives none.

    Attributes:
        total_bytes: all files of the model that are wanted.
        left_bytes: what of them is not in the cache.
        free_bytes: on the disk of the cache, which is `folder`.
    """

    source: str
    num_files: int
    total_bytes: int | None
    left_bytes: int | None
    free_bytes: int
    folder: Path

    @property
    def has_room(self) -> bool:
        """Whether the disk has room for it; so too where nobody knows."""
        return self.left_bytes is None or self.left_bytes <= self.free_bytes

    def __str__(self) -> str:
        """Such as `pulling acme/m@main downloads 3.1 of 3.4 GB in 9 files; 210 GB are free in /home/me/weights`."""
        files = f"{self.num_files} file{'' if self.num_files == 1 else 's'}"
        size = "an unknown size"
        if self.left_bytes is not None and self.total_bytes is not None:
            size = describe_size(self.left_bytes)
            if self.left_bytes < self.total_bytes:
                size += f" of {describe_size(self.total_bytes)} (the rest is here)"
        free = f"{describe_size(self.free_bytes)} are free in {self.folder}"
        remedy = "" if self.has_room else ", too little: free space there or set CONSOLE_HOME to another folder"
        return f"pulling {self.source} downloads {size} in {files}; {free}{remedy}"


def locate(source: str, cache: WeightsCache, open_hub: Callable[[], Hub], on_progress: Progress) -> Source:
    """As `find_here`, once the hub was asked what the source stands for, where nothing is known of it: the same content
    may have come under another name.

    Raises:
        WeightsError: it names nothing, or the hub cannot be asked or refuses.
    """
    found = find_here(source, cache)
    if found.hub is None:
        return found
    with cache.writing():
        look_up(found.hub, cache, open_hub(), on_progress)
    return find_here(source, cache)


def measure_download(
    source: str, cache: WeightsCache, open_hub: Callable[[], Hub], on_progress: Progress
) -> DownloadSize | None:
    """What pulling `source` would download; None where it is on this machine already.

    Raises:
        WeightsError: it names nothing, the hub cannot be asked or refuses, or the model cannot be loaded.
    """
    hub_id = locate(source, cache, open_hub, on_progress).hub
    if hub_id is None:
        return None
    with cache.writing():
        repository = look_up(hub_id, cache, open_hub(), on_progress).repository
    chosen = choose_files(hub_id.repo_id, repository.files, hub_id.gguf_name)
    snapshot = Snapshot(hub_id.repo_id, repository.commit, chosen[0].path if is_gguf(chosen) else None)
    sizes = [file.size_bytes for file in chosen if file.size_bytes is not None]
    is_known = len(sizes) == len(chosen)
    left_bytes = bytes_to_fetch(Wanted(snapshot, repository, chosen), cache)
    return DownloadSize(
        str(hub_id),
        len(chosen),
        sum(sizes) if is_known else None,
        left_bytes if is_known else None,
        cache.free_bytes(),
        cache.root,
    )


def read_preview(hub_id: HubId, texts: Sequence[str], cache: WeightsCache, hub: Hub, on_progress: Progress) -> Preview:
    """The headers of a model of the hub, and its files of the names in `texts`. No weights are downloaded.

    Raises:
        WeightsError: the hub cannot be asked or refuses, or a header cannot be true.
    """
    with cache.writing():
        found = look_up(hub_id, cache, hub, on_progress)
        repository = found.repository
        chosen = choose_files(hub_id.repo_id, repository.files, hub_id.gguf_name)
        reader = HeadReader(repository, cache, found.ask, on_progress)
        if is_gguf(chosen):
            return Preview(hub_id.repo_id, gguf=reader.read(chosen, parse_gguf_header)[chosen[0].path])
        shards = [file for file in chosen if file.path.endswith(".safetensors")]
        return Preview(
            hub_id.repo_id,
            reader.read([file for file in chosen if file.path in texts], _read_text),
            reader.read(sorted(shards, key=lambda file: file.path), check_header),
        )


def _read_text(file: OpenFile) -> bytes:
    if file.size_bytes > _MAX_TEXT_BYTES:
        raise WeightsError(
            f"{file} has {file.size_bytes:,} bytes, and at most {_MAX_TEXT_BYTES:,} are read: {file.remedy}"
        )
    return file.stream.read(file.size_bytes)
