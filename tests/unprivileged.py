"""A real process of a user who may do little."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_NOBODY = 65_534
_BECOME = f"import os; os.setgroups([]); os.setgid({_NOBODY}); os.setuid({_NOBODY})\n"


def run_as_nobody(imports: str, script: str, **environment: str) -> str:
    """What a Python script prints as a user without rights, who may not even be able to read Python's own files.

    Skips the test where this user cannot become another.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    command = [sys.executable, "-c", f"{imports}\n{_BECOME}{script}"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder whose parents everybody may look into, unlike those of `tmp_path`."""
    with tempfile.TemporaryDirectory(prefix="console-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
