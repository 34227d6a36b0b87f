from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.inference.compiled.compiler import find_compiler
from engine.inference.compiled.library import find_or_compile

_NEEDS_COMPILER = pytest.mark.skipif(find_compiler() is None, reason="no C compiler is installed")


@_NEEDS_COMPILER
def test_it_is_compiled_once(tmp_path: Path) -> None:
    first = find_or_compile(tmp_path / "compiled")
    assert isinstance(first, Path)
    assert ctypes.CDLL(str(first)).console_forward
    made_at = first.stat().st_mtime_ns
    began = time.perf_counter()
    assert find_or_compile(tmp_path / "compiled") == first
    assert time.perf_counter() - began < 1
    assert first.stat().st_mtime_ns == made_at
    assert [path.name for path in first.parent.iterdir()] == [first.name]


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = _script(tmp_path / "cc", 'echo "fatal: no libc" >&2; exit 1')
    monkeypatch.setenv("CC", compiler)
    why = f"{compiler} does not compile it: fatal: no libc; set CC to a C compiler that does"
    assert find_or_compile(tmp_path / "compiled") == why
    assert not list((tmp_path / "compiled").glob("*"))


@_NEEDS_COMPILER
def test_the_command(tmp_path: Path) -> None:
    """What an image's build runs: a failing compiler fails it."""
    command = [sys.executable, "-m", "engine.inference.compiled.library", str(tmp_path)]
    assert subprocess.run(command, check=False).returncode == 0
    assert len(list(tmp_path.glob("forward-*.so"))) == 1
    broken = {**os.environ, "CC": "false"}
    done = subprocess.run(
        [*command[:-1], str(tmp_path / "other")], env=broken, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "false does not compile it: exit status 1; set CC to a C compiler that does\n",
    )


def test_no_compiler_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_compiler() is None
    assert find_or_compile(tmp_path) == "no C compiler is installed (Debian: apt install gcc libc6-dev)"


@_NEEDS_COMPILER
def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = find_or_compile(tmp_path / "file" / "compiled")
    assert isinstance(found, str)
    assert "Not a directory" in found


def test_a_plan_needs_no_torch_to_know_of_it() -> None:
    code = "import sys, engine.inference.compiled.compiler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
