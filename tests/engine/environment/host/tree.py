"""Files of a machine, laid out below a folder that stands for its root."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.environment.check import Finding
from engine.environment.context import CheckContext
from engine.environment.host import host_checks
from engine.environment.profile import HostProfile, Profile
from engine.telemetry.nvml import Nvml

# From this project's build machine, shortened.
MEMINFO = """\
MemTotal:       24683656 kB
MemFree:        22642160 kB
MemAvailable:   24128196 kB
Buffers:          107204 kB
SwapTotal:             0 kB
SwapFree:              0 kB
CommitLimit:    12341828 kB
Committed_AS:    1204112 kB
HugePages_Total:       0
"""
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max processes             96364                96364                processes
Max open files            1024                 20000                files
Max nice priority         0                    0
"""


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """`root` with the files in it."""
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    return root


def host(**keys: Any) -> HostProfile:
    """A profile's part on the host, the rest as by default."""
    return HostProfile.model_validate(keys)


def run_check(
    check_id: str,
    tmp_path: Path,
    files: dict[str, str],
    is_serving: bool = False,
    **keys: Any,
) -> Finding:
    """What one check finds on a machine of these files with a profile of these host keys."""
    root = write_tree(tmp_path / "root", files)
    profile = Profile(title="test", host=host(**keys))
    context = CheckContext(profile, tmp_path / "home", Nvml(), root=root, is_serving=is_serving)
    return next(check for check in host_checks(context) if check.id == check_id).run()
