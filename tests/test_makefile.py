"""A machine on which `make run` cannot work is told so in one clear line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAKE_VERSION = 'exec "{python}" -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def refusal(folder: Path, python: str) -> str:
    """The first line that `make run` says on standard error, in a folder without an environment."""
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    ended = subprocess.run(
        ["make", "run", f"PYTHON={python}"], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert not (folder / ".venv").exists()
    return ended.stderr.splitlines()[0]


def test_no_python(tmp_path: Path) -> None:
    assert refusal(tmp_path, "nonesuch").startswith("make: nonesuch not found; install Python 3.11 or newer")


def test_an_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\n" + FAKE_VERSION.format(python=sys.executable) + "\n")
    old.chmod(0o755)
    assert refusal(tmp_path, str(old)).startswith("make: Python 3.9 found, 3.11 or newer is needed")
