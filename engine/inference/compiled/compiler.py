"""This machine's C compiler."""

from __future__ import annotations

import os
import shlex
import shutil


def find_compiler() -> list[str] | None:
    """The command: `CC` where it is set, as make has it, else the system's own; None where there is none."""
    asked = shlex.split(os.environ.get("CC", ""))
    if asked:
        return asked
    return next(([name] for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
