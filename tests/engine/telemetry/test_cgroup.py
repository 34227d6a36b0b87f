from __future__ import annotations

from pathlib import Path

import pytest

from engine.telemetry.cgroup import CgroupMemory, read_cgroup_memory

V1_UNLIMITED = "9223372036854771712\n"


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    return root


def test_v2_limit_leaves_out_reclaimable_cache(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/app.slice/console\n",
            "sys/fs/cgroup/app.slice/console/memory.max": "8000\n",
            "sys/fs/cgroup/app.slice/console/memory.current": "5000\n",
            "sys/fs/cgroup/app.slice/console/memory.stat": "anon 3000\nfile 2000\ninactive_file 1500\n",
        },
    )
    memory = read_cgroup_memory(root)
    assert memory == CgroupMemory(limit_bytes=8000, used_bytes=3500)
    assert memory.available_bytes == 4500


def test_v2_parent_can_be_the_tightest(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "4000\n",
            "sys/fs/cgroup/a/memory.current": "1000\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
        },
    )
    assert read_cgroup_memory(root) == CgroupMemory(4000, 1000)


def test_v2_in_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {"proc/self/cgroup": "0::/../docker/abc\n", "sys/fs/cgroup/memory.max": "6000\n"},
    )
    memory = read_cgroup_memory(root)
    assert memory == CgroupMemory(6000, None)
    assert memory.available_bytes == 6000


def test_v1_limit_in_a_hybrid_tree(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "9:name=systemd:/\n4:memory:/docker/abc\n1:cpu,cpuacct:/\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "2000\n",
            "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "1900\n",
            "sys/fs/cgroup/memory/docker/abc/memory.stat": "cache 900\ntotal_inactive_file 800\n",
        },
    )
    assert read_cgroup_memory(root) == CgroupMemory(2000, 1100)


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED},
    ],
    ids=["no proc", "no cgroups", "v2 without limit", "v1 without limit"],
)
def test_no_limit_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_cgroup_memory(write_tree(tmp_path, files)) is None


def test_usage_beyond_the_limit_leaves_nothing() -> None:
    assert CgroupMemory(limit_bytes=100, used_bytes=120).available_bytes == 0


def test_this_machine_can_be_read() -> None:
    memory = read_cgroup_memory()
    assert memory is None or memory.limit_bytes > 0
