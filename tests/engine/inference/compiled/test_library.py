from __future__ import annotations

import ctypes
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


@_NEEDS_COMPILER
def test_another_compiler_makes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_or_compile(tmp_path)
    monkeypatch.setenv("CC", f"{find_compiler()[0]} -O1")  # type: ignore[index]
    assert find_or_compile(tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2


def _script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 1", "{cc} --version fails: set CC to a C compiler, or install gcc"),
        (
            '[ "$1" = --version ] && exit 0; echo "fatal: no libc" >&2; exit 1',
            "{cc} does not compile it: fatal: no libc",
        ),
    ],
)
def test_why_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str) -> None:
    compiler = _script(tmp_path / "cc", script)
    monkeypatch.setenv("CC", compiler)
    assert find_or_compile(tmp_path / "compiled") == why.format(cc=compiler)
    assert not list((tmp_path / "compiled").glob("*"))


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
