from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.telemetry.cgroup import (
    CgroupCpus,
    CgroupMemory,
    CgroupTasks,
    MemoryLevel,
    read_cgroup_cpus,
    read_cgroup_memory,
    read_cgroup_tasks,
    tightest,
)

# `v1` was read off a kernel 6.18 while a process of the inner group held a file of 150 MiB, read twice, and 40 MiB of
# its own; names were changed. `v2` is made up in the format of that kernel: a pod whose parent is nearly full.
TREES = Path(__file__).parent / "cgroup_trees"
V1_UNLIMITED = "9223372036854771712\n"
MIB, GIB = 1 << 20, 1 << 30
POD = "/kubepods.slice/kubepods-pod1.slice"


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")
    return root


def copy_tree(name: str, root: Path, changes: dict[str, str]) -> Path:
    return write_tree(shutil.copytree(TREES / name, root / name), changes)


def test_v1_counts_page_cache_that_was_read_twice_as_free() -> None:
    memory = read_cgroup_memory(TREES / "v1")
    assert memory is not None
    assert memory.limit_bytes == 256 * MIB
    assert memory.available_bytes == 268_435_456 - (205_250_560 - 157_298_688)
    assert memory.limit_at == memory.available_at == "memory.limit_in_bytes of /batch/job-1"


def test_v1_quota_and_tasks() -> None:
    assert read_cgroup_cpus(TREES / "v1") == CgroupCpus(1.5, "cpu.cfs_quota_us of /job-1")
    assert read_cgroup_tasks(TREES / "v1") == CgroupTasks(512, 511, "pids.max of /job-1")


def test_v1_memory_and_swap_together_can_be_tighter(tmp_path: Path) -> None:
    job = "sys/fs/cgroup/memory/batch/job-1"
    root = copy_tree("v1", tmp_path, {f"{job}/memory.memsw.usage_in_bytes": str(510 * MIB)})
    memory = read_cgroup_memory(root)
    assert memory is not None
    assert memory.limit_bytes == 256 * MIB
    assert memory.available_bytes == 512 * MIB - (510 * MIB - 157_298_688)
    assert memory.available_at == "memory.memsw.limit_in_bytes of /batch/job-1"


def test_v2_full_parent_binds_although_its_limit_is_larger() -> None:
    memory = read_cgroup_memory(TREES / "v2")
    assert memory == CgroupMemory(
        limit_bytes=32 * GIB,
        available_bytes=64 * GIB - 62 * GIB + 3 * GIB + 512 * MIB,
        limit_at=f"memory.max of {POD}",
        available_at="memory.max of /kubepods.slice",
    )


def test_v2_throttle_counts_as_a_limit(tmp_path: Path) -> None:
    root = copy_tree("v2", tmp_path, {f"sys/fs/cgroup{POD}/console.scope/memory.high": f"{12 * GIB}\n"})
    memory = read_cgroup_memory(root)
    assert memory is not None
    assert memory.limit_bytes == 12 * GIB
    assert memory.available_bytes == 12 * GIB - (20 * GIB - 8 * MIB - 11 * GIB - 255 * MIB)
    assert memory.limit_at == memory.available_at == f"memory.high of {POD}/console.scope"


def test_v2_limit_of_zero_leaves_nothing(tmp_path: Path) -> None:
    memory = read_cgroup_memory(copy_tree("v2", tmp_path, {f"sys/fs/cgroup{POD}/memory.max": "0\n"}))
    assert memory is not None
    assert (memory.limit_bytes, memory.available_bytes) == (0, 0)


def test_v2_shared_memory_is_not_free(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "8000\n",
            "sys/fs/cgroup/memory.current": "5000\n",
            "sys/fs/cgroup/memory.stat": "anon 1000\nfile 4000\nshmem 3000\ninactive_file 600\nactive_file 400\n",
        },
    )
    memory = read_cgroup_memory(root)
    assert memory is not None
    assert memory.available_bytes == 4000


def test_v2_quota_and_tasks() -> None:
    assert read_cgroup_cpus(TREES / "v2") == CgroupCpus(4.0, f"cpu.max of {POD}")
    assert read_cgroup_tasks(TREES / "v2") == CgroupTasks(1024, 723, f"pids.max of {POD}")


def test_v2_in_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {"proc/self/cgroup": "0::/../docker/abc\n", "sys/fs/cgroup/memory.max": "6000\n"},
    )
    assert read_cgroup_memory(root) == CgroupMemory(6000, 6000, "memory.max of /", "memory.max of /")


def test_v1_in_a_container_that_sees_its_own_part_of_the_tree(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc/init\n",
            "proc/self/mountinfo": "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "4000\n",
            "sys/fs/cgroup/memory/init/memory.limit_in_bytes": "3000\n",
        },
    )
    at = "memory.limit_in_bytes of /docker/abc/init"
    assert read_cgroup_memory(root) == CgroupMemory(3000, 3000, at, at)


def test_hybrid_tree_with_memory_in_v2_is_found_where_it_is_mounted(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/app\n0::/app\n",
            "proc/self/mountinfo": (
                "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
            ),
            "sys/fs/cgroup/unified/app/memory.max": "2000\n",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us": "100000\n",
        },
    )
    memory = read_cgroup_memory(root)
    assert memory is not None
    assert memory.limit_bytes == 2000
    assert read_cgroup_cpus(root) == CgroupCpus(0.5, "cpu.cfs_quota_us of /app")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": ""},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED},
        {"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n"},
    ],
    ids=["no proc", "no cgroups", "v2 without limit", "v1 without limit", "v1 without quota"],
)
def test_no_limit_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    root = write_tree(tmp_path, files)
    assert read_cgroup_memory(root) is None
    assert read_cgroup_cpus(root) is None
    assert read_cgroup_tasks(root) is None


LEVELS = st.lists(
    st.builds(MemoryLevel, st.sampled_from("abc"), st.integers(0, 10**13), st.none() | st.integers(0, 10**13)),
    min_size=1,
)


@given(LEVELS)
def test_no_level_leaves_less_than_is_told(levels: list[MemoryLevel]) -> None:
    memory = tightest(levels)
    assert memory is not None
    assert 0 <= memory.available_bytes <= memory.limit_bytes
    assert all(memory.limit_bytes <= level.limit_bytes for level in levels)
    assert all(memory.available_bytes <= level.available_bytes for level in levels)
    assert any(level.at == memory.available_at for level in levels)


def test_usage_beyond_the_limit_leaves_nothing() -> None:
    assert MemoryLevel("memory.max of /", limit_bytes=100, used_bytes=120).available_bytes == 0
    assert tightest([]) is None


def test_this_machine_can_be_read() -> None:
    memory = read_cgroup_memory()
    assert memory is None or 0 <= memory.available_bytes <= memory.limit_bytes


# Fills the page cache, says so, and then takes as much memory of its own as it is told to.
CHILD = """
import os, sys
file, *groups = sys.argv[1:]
for group in groups:
    with open(group + "/cgroup.procs", "w") as procs:
        procs.write(str(os.getpid()))
block = os.urandom(1 << 20)
with open(file, "wb") as out:
    for _ in range(100):
        out.write(block)
    out.flush()
    os.fsync(out.fileno())
for _ in range(2):
    with open(file, "rb") as back:
        while back.read(1 << 20):
            pass
print("filled", flush=True)
taken = bytearray(int(sys.stdin.readline()))
for position in range(0, len(taken), 4096):
    taken[position] = 1
print("taken", len(taken), flush=True)
"""


def own_v1_folder(controller: str) -> Path:
    for line in Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup") / controller / path.lstrip("/")
    pytest.skip(f"the {controller} controller is not in a v1 tree here")


@contextmanager
def v1_group(controller: str, settings: dict[str, str]) -> Iterator[Path]:
    """A group below this process's own, gone at the end."""
    folder = own_v1_folder(controller) / f"console-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no group can be made here: {error}")
    try:
        for name, value in settings.items():
            (folder / name).write_text(value, encoding="ascii")
        yield folder
    finally:
        folder.rmdir()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="makes control groups: needs Linux and root")
def test_a_process_in_a_real_v1_group_can_take_what_is_told_as_available(tmp_path: Path) -> None:
    limit = 160 * MIB
    with ExitStack() as groups:
        memory_group = groups.enter_context(v1_group("memory", {"memory.limit_in_bytes": str(limit)}))
        cpu_group = groups.enter_context(v1_group("cpu", {"cpu.cfs_quota_us": "150000"}))
        tasks_group = groups.enter_context(v1_group("pids", {"pids.max": "64"}))
        folders = [str(memory_group), str(cpu_group), str(tasks_group)]
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "big.bin"), *folders],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "filled\n"
            root = seen_by(child.pid, tmp_path / "root")
            memory, cpus, tasks = read_cgroup_memory(root), read_cgroup_cpus(root), read_cgroup_tasks(root)
            assert memory is not None
            taken = int(memory.available_bytes * 0.9)
            output, _ = child.communicate(f"{taken}\n", timeout=60)
        finally:
            child.kill()
            child.communicate()
    assert memory.limit_bytes == limit
    assert memory.available_bytes > limit - 40 * MIB, "the 100 MiB of page cache count as used"
    assert output == f"taken {taken}\n", "the kernel ended it before it had what was told as available"
    assert cpus is not None
    assert cpus.num_cpus == 1.5
    assert tasks is not None
    assert (tasks.limit, tasks.available) == (64, 63)


def seen_by(pid: int, root: Path) -> Path:
    """A root folder in which `self` is another process."""
    (root / "proc/self").mkdir(parents=True)
    for name in ("cgroup", "mountinfo"):
        (root / "proc/self" / name).write_bytes(Path(f"/proc/{pid}/{name}").read_bytes())
    (root / "sys").symlink_to("/sys")
    return root
