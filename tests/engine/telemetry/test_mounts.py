from __future__ import annotations

from pathlib import Path

import pytest

from engine.telemetry.mounts import Mount, find_mount, read_mounts

MOUNTINFO = """\
22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,discard
90 28 0:50 /exports/models /srv/my\\040models ro,relatime shared:40 master:3 - nfs4 10.0.0.2:/exports rw,vers=4.2
91 28 0:51 / /data rw - tmpfs tmpfs rw,size=1024k
92 91 8:1 / /data rw - xfs /dev/sda1 rw
"""


def read(tmp_path: Path, text: str = MOUNTINFO) -> tuple[Mount, ...]:
    (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
    (tmp_path / "proc/self/mountinfo").write_text(text, encoding="ascii")
    return read_mounts(tmp_path)


def test_lines_are_read_with_and_without_optional_fields(tmp_path: Path) -> None:
    models, data = read(tmp_path)[2:4]
    assert (models.source_root, models.point, models.kind) == ("/exports/models", "/srv/my models", "nfs4")
    assert {"ro", "vers=4.2"} <= models.options
    assert (data.point, data.kind) == ("/data", "tmpfs")


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/console", "ext4"),
        ("/", "ext4"),
        ("/srv/my models/weights", "nfs4"),
        ("/srv/my models too", "ext4"),
        ("/data/weights", "xfs"),
    ],
    ids=["below the root", "the root", "below a mount", "only the same beginning", "mounted over another"],
)
def test_the_deepest_and_latest_mount_holds_a_folder(tmp_path: Path, folder: str, kind: str) -> None:
    mount = find_mount(Path(folder), read(tmp_path))
    assert mount is not None
    assert mount.kind == kind


def test_without_proc_there_are_none(tmp_path: Path) -> None:
    assert read_mounts(tmp_path) == ()
    assert find_mount(Path("/srv"), ()) is None


def test_this_machine_has_a_root() -> None:
    mount = find_mount(Path("/"), read_mounts())
    assert mount is None or mount.point == "/"
