"""Which drivers run which CUDA release: NVIDIA's tables, and what holds between a driver and a build.

Sources: "CUDA Toolkit and Corresponding Driver Versions" and "Minimum Required Driver Version for CUDA Minor Version
Compatibility" in https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/index.html (Linux, first release of each
version), and for the forward-compatibility package
https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Version = tuple[int, ...]

TOOLKIT_DRIVER: dict[Version, str] = {
    (13, 3): "610.43.02",
    (13, 2): "595.45.04",
    (13, 1): "590.44.01",
    (13, 0): "580.65.06",
    (12, 9): "575.51.03",
    (12, 8): "570.26",
    (12, 6): "560.28.03",
    (12, 5): "555.42.02",
    (12, 4): "550.54.14",
    (12, 3): "545.23.06",
    (12, 2): "535.54.03",
    (12, 1): "530.30.02",
    (12, 0): "525.60.13",
    (11, 8): "520.61.05",
    (11, 7): "515.43.04",
    (11, 6): "510.39.01",
    (11, 5): "495.29.05",
    (11, 4): "470.42.01",
    (11, 3): "465.19.01",
    (11, 2): "460.27.03",
    (11, 1): "455.23",
    (11, 0): "450.51.05",
}
# The release notes say 580, 525 and 450; these are the first drivers of those branches that they list. For 11.x they
# ask for 450.80.02 in a footnote, although 11.0 itself came with an earlier one.
FAMILY_DRIVER: dict[int, str] = {13: "580.65.06", 12: "525.60.13", 11: "450.80.02"}


class Compatibility(StrEnum):
    """How a driver runs a CUDA build."""

    NATIVE = "native"
    MINOR = "minor-version compatibility"
    FORWARD = "forward compatibility"
    TOO_OLD = "too old"
    UNKNOWN = "not told"


@dataclass(frozen=True)
class CompatPackage:
    """NVIDIA's forward-compatibility package: a newer libcuda beside the driver's own.

    `is_on_path` says that the loader prefers it: its folder is in LD_LIBRARY_PATH or in /etc/ld.so.conf.d.
    """

    folder: str
    driver_version: str
    is_on_path: bool


def parse_version(text: str) -> Version:
    """`580.95.05` as (580, 95, 5); what follows the numbers is left out."""
    found = re.match(r"\d+(\.\d+)*", text.strip())
    return tuple(map(int, found[0].split("."))) if found else ()


def is_at_least(version: str, wanted: str) -> bool:
    """Compare dotted versions; a shorter one counts as filled with zeros."""
    have, need = parse_version(version), parse_version(wanted)
    width = max(len(have), len(need))
    return have + (0,) * (width - len(have)) >= need + (0,) * (width - len(need))


def toolkit_driver(cuda: str) -> str | None:
    """The driver that came with a CUDA release; None for one that is not in the table."""
    return TOOLKIT_DRIVER.get(parse_version(cuda)[:2])


def family_driver(cuda: str) -> str | None:
    """The oldest driver that runs any release of this CUDA major version; None for a version not in the table."""
    return FAMILY_DRIVER.get(parse_version(cuda)[0])


def find_compatibility(
    cuda: str, driver: str | None, driver_cuda: str | None, package: CompatPackage | None, is_data_center: bool
) -> Compatibility:
    """What holds for a build with CUDA `cuda` on this driver.

    A driver's own CUDA version decides where the release or the driver's version is not in the table. The
    forward-compatibility package counts only on data-center cards, with the loader's path set to it.
    """
    native, family = toolkit_driver(cuda), family_driver(cuda)
    if driver is not None and native is not None and family is not None:
        if is_at_least(driver, native):
            return Compatibility.NATIVE
        if is_at_least(driver, family):
            return Compatibility.MINOR
        return _forward_or_too_old(native, family, package, is_data_center)
    if driver_cuda is None:
        return Compatibility.UNKNOWN
    if is_at_least(driver_cuda, cuda):
        return Compatibility.NATIVE
    return Compatibility.MINOR if parse_version(driver_cuda)[0] == parse_version(cuda)[0] else Compatibility.TOO_OLD


def read_compat_package(root: Path, environment: Mapping[str, str] = os.environ) -> CompatPackage | None:
    """The forward-compatibility package below `root`; the one on the loader's path first, None where there is none."""
    on_path = [root / folder.lstrip("/") for folder in environment.get("LD_LIBRARY_PATH", "").split(":") if folder]
    on_path += [root / folder.lstrip("/") for folder in _configured_folders(root)]
    installed = sorted((root / "usr/local").glob("cuda*/compat"), reverse=True)
    for folder in (*(path for path in on_path if "compat" in path.parts), *installed):
        if version := _libcuda_version(folder):
            resolved = [path.resolve() for path in on_path]
            shown = "/" + str(folder.relative_to(root))
            return CompatPackage(shown, version, folder.resolve() in resolved)
    return None


def _forward_or_too_old(native: str, family: str, package: CompatPackage | None, is_data_center: bool) -> Compatibility:
    if package is None or not package.is_on_path or not is_data_center:
        return Compatibility.TOO_OLD
    is_enough = is_at_least(package.driver_version, family) or is_at_least(package.driver_version, native)
    return Compatibility.FORWARD if is_enough else Compatibility.TOO_OLD


def _configured_folders(root: Path) -> list[str]:
    folders: list[str] = []
    for file in sorted((root / "etc/ld.so.conf.d").glob("*.conf")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        folders += [line.strip() for line in lines if line.strip().startswith("/")]
    return folders


def _libcuda_version(folder: Path) -> str | None:
    """From the name of the library, libcuda.so.580.65.06."""
    names = (file.name.removeprefix("libcuda.so.") for file in sorted(folder.glob("libcuda.so.*.*"), reverse=True))
    return next((name for name in names if len(parse_version(name)) > 1), None)
