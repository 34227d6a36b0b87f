from __future__ import annotations

from dashboard.components.environment_report import change_line, version_rows
from engine.environment import Change, Direction


def test_changes_are_plain_and_say_for_the_worse() -> None:
    worse = Change("host.disk", "Disk", "status", "pass", "warn", Direction.WORSE, "9 GB free at /a_b")
    assert change_line(worse) == r"**Disk**, status: pass → warn · :red[worse] · 9 GB free at /a\_b"
    upgrade = Change("gpu.driver", "NVIDIA driver", "driver_version", "570.26", "580.95.05")
    assert change_line(upgrade) == "**NVIDIA driver**, driver version: 570.26 → 580.95.05"


def test_versions() -> None:
    assert version_rows({"torch": "2.13.0", "torch_cuda": None, "new-part": "1"}) == [
        {"Component": "PyTorch", "Version": "2.13.0"},
        {"Component": "CUDA that PyTorch was built with", "Version": "–"},
        {"Component": "new-part", "Version": "1"},
    ]
