"""What pruning would free on the container engine's disk, from its own account of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Usage = Mapping[str, Any]


@dataclass(frozen=True)
class Reclaimable:
    """Bytes that pruning would free, as `docker system df` counts them. Volumes are left out: they hold data that
    nobody can download again."""

    images_bytes: int = 0
    containers_bytes: int = 0
    build_cache_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.images_bytes + self.containers_bytes + self.build_cache_bytes


def count_reclaimable(usage: Usage) -> Reclaimable:
    """Read the engine's answer to GET /system/df: its own sums (API 1.52 and later), else sums over what it lists."""
    return Reclaimable(
        images_bytes=_count(usage, "ImageUsage", _unused_images),
        containers_bytes=_count(usage, "ContainerUsage", _stopped_containers),
        build_cache_bytes=_count(usage, "BuildCacheUsage", _unused_cache),
    )


def _count(usage: Usage, key: str, sum_up: Callable[[Usage], int]) -> int:
    told = usage.get(key)
    return max(0, sum_up(usage) if told is None else int(told.get("Reclaimable") or 0))


def _unused_images(usage: Usage) -> int:
    """All layers but those that only images in use have; a size of -1 was not counted."""
    used = (image for image in usage.get("Images") or () if image.get("Containers"))
    sizes = [(image.get("Size", -1), image.get("SharedSize", -1)) for image in used]
    used_bytes = sum(size - shared for size, shared in sizes if min(size, shared) >= 0)
    return int((usage.get("LayersSize") or 0) - used_bytes)


def _stopped_containers(usage: Usage) -> int:
    stopped = (one for one in usage.get("Containers") or () if one.get("State") not in ("running", "paused"))
    return sum(one.get("SizeRw") or 0 for one in stopped)


def _unused_cache(usage: Usage) -> int:
    unused = (one for one in usage.get("BuildCache") or () if not one.get("InUse") and not one.get("Shared"))
    return sum(one.get("Size") or 0 for one in unused)
