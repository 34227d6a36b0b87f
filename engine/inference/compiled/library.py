"""forward.c as a library: compiled by this machine's C compiler the first time, kept for every later start.

The library lies in the user's cache folder, or came with the program, under a name made of the source, the processor
and the options, so a new version of any of them compiles anew and nothing is ever loaded that was made of something
else. It takes some seconds; `prepare` has it done in the background while a model is being read.

    python -m engine.inference.compiled.library FOLDER      compiles it into FOLDER, as an image's build does
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs
import torch

from engine.inference.compiled.compiler import BUILT, find_compiler

_log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("forward.c")
_OPTIONS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-Wno-psabi")
# Eight float32 side by side are what the source is written in; wider registers would change nothing. All compilers
# know these two, not all know the names of processors.
_OPTIONS_OF = dict.fromkeys(("AVX2", "AVX512"), ("-mavx2", "-mfma"))
_LONGEST_S = 120.0


@dataclass(frozen=True, slots=True)
class Library:
    """The functions of forward.c, or why there are none."""

    functions: ctypes.CDLL | None
    why_not: str | None = None


def prepare() -> None:
    """Have the library compiled, should it not be, while the caller goes on."""
    threading.Thread(target=library, name="compile-forward", daemon=True).start()


_lock = threading.Lock()


def library() -> Library:
    """The library, compiled if need be: the same for all callers, who wait for each other."""
    with _lock:
        return _library()


@cache
def _library() -> Library:
    built = BUILT / _name()
    found = built if built.is_file() else find_or_compile(platformdirs.user_cache_path("autoglm-console") / "compiled")
    if isinstance(found, str):
        _log.warning("forward passes are not compiled: %s", found)
        return Library(None, found)
    functions = ctypes.CDLL(str(found))
    functions.console_open_pool.restype = ctypes.c_void_p
    functions.console_open_pool.argtypes = (ctypes.c_int,)
    functions.console_close_pool.restype = None
    functions.console_close_pool.argtypes = (ctypes.c_void_p,)
    functions.console_forward.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
    return Library(functions)


def find_or_compile(folder: Path) -> Path | str:
    """The library's file in `folder`, or the reason why there is none."""
    target = folder / _name()
    if target.is_file():
        return target
    command = find_compiler()
    if command is None:
        return "no C compiler is installed (Debian: apt install gcc libc6-dev)"
    return _compile([*command, *_options()], target)


def _options() -> tuple[str, ...]:
    return (*_OPTIONS, *_OPTIONS_OF.get(torch.backends.cpu.get_cpu_capability(), ()))


def _name() -> str:
    parts = (_SOURCE.read_bytes(), platform.machine().encode(), " ".join(_options()).encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return f"forward-{digest[:32]}.so"


def _compile(command: list[str], target: Path) -> Path | str:
    """Beside its place first, then there in one step: a file that is there is whole."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            subprocess.run(
                [*command, str(_SOURCE), "-o", str(made), "-lm"],
                capture_output=True,
                text=True,
                timeout=_LONGEST_S,
                check=True,
            )
            made.replace(target)
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or f"exit status {error.returncode}").splitlines()[0]
        return f"{command[0]} does not compile it: {why}; set CC to a C compiler that does"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} does not compile it: {error}"
    return target


if __name__ == "__main__":
    made = find_or_compile(Path(sys.argv[1]))
    sys.exit(made if isinstance(made, str) else None)
