"""This machine's C compiler, or what was compiled elsewhere."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

BUILT = Path(__file__).with_name("built")  # where an image has the library


def find_compiler() -> list[str] | None:
    """The command: `CC` where it is set, as make has it, else the system's own; None where there is none."""
    asked = shlex.split(os.environ.get("CC", ""))
    if asked:
        return asked
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def can_compile() -> bool:
    """Whether there will be a library, as far as can be told without compiling it."""
    return BUILT.is_dir() or find_compiler() is not None
