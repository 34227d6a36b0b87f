from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

from engine.weights.lease import lease_folder, seized, wait_for_lock

_HOLD = """
import sys, time
from pathlib import Path
from engine.weights.lease import lease_folder
lease = lease_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def _is_free(path: Path) -> bool:
    with seized(path) as is_free:
        return is_free


def test_held_until_closed(tmp_path: Path) -> None:
    os.utime(tmp_path, (0, 0))
    first, second = lease_folder(tmp_path), lease_folder(tmp_path)
    assert first is not None
    assert second is not None
    assert tmp_path.stat().st_mtime > time.time() - 60, "its use is noted"
    first.close()
    first.close()
    assert not _is_free(tmp_path)
    with second:
        assert second.is_held
    assert not second.is_held
    assert _is_free(tmp_path)


def test_collected_is_closed(tmp_path: Path) -> None:
    lease = lease_folder(tmp_path)
    assert lease is not None
    del lease
    gc.collect()
    assert _is_free(tmp_path)


def test_killed_is_closed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not _is_free(tmp_path)
        process.kill()
        process.wait(10)
    assert _is_free(tmp_path)


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lease_folder(tmp_path / "none") is None
    assert lease_folder(tmp_path / "file") is None
    assert not _is_free(tmp_path / "none")


def test_waiting_ends_when_the_name_means_another(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    lease = lease_folder(folder)
    assert lease is not None
    handle = os.open(folder, os.O_RDONLY)
    calls = []

    def rename() -> None:
        calls.append(1)
        folder.rename(tmp_path / "b")

    assert not wait_for_lock(handle, folder, rename)
    os.close(handle)
    assert calls == [1]
    lease.close()
