"""forward.c as a library: compiled by this machine's C compiler the first time, kept for every later start.

The library lies in the user's cache folder under a name made of the source, the compiler and the options, so a new
version of any of them compiles anew and nothing is ever loaded that was made of something else. It takes some seconds;
`prepare` has it done in the background while a model is being read.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import shlex
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import platformdirs
import torch

from engine.inference.compiled.compiler import find_compiler

_log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("forward.c")
_OPTIONS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-pthread", "-Wno-psabi")
# One row of eight float32 is what the source is written in; wider registers would change nothing.
_OPTIONS_OF = {"AVX2": ("-march=x86-64-v3",), "AVX512": ("-march=x86-64-v3",), "DEFAULT": ()}
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
    found = find_or_compile(platformdirs.user_cache_path("autoglm-console") / "compiled")
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
    command = find_compiler()
    options = (*_OPTIONS, *_OPTIONS_OF.get(torch.backends.cpu.get_cpu_capability(), ()))
    if command is None:
        return "no C compiler is installed (Debian: apt install gcc libc6-dev)"
    version = _output_of([*command, "--version"])
    if version is None:
        return f"{shlex.join(command)} --version fails: set CC to a C compiler, or install gcc"
    parts = (_SOURCE.read_bytes(), version.encode(), " ".join((*command, *options)).encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    target = folder / f"forward-{name}.so"
    return target if target.is_file() else _compile([*command, *options], target)


def _output_of(command: list[str]) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None


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
        return f"{command[0]} does not compile it: {(error.stderr.strip() or 'no message').splitlines()[0]}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{command[0]} does not compile it: {error}"
    return target
