"""The door to the package registry: pip itself, in a process of its own, so that mirrors, proxies and certificates are
those that an installation would use. Nothing is installed and no package's code is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.utils import canonicalize_name

from engine.environment.python.distributions import Distribution, parse_requirements

_CONNECT_TIMEOUT_S = 5
_PIP = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input")
_ASK = ("--timeout", str(_CONNECT_TIMEOUT_S), "--retries", "1")
_AVAILABLE = re.compile(r"^\s*Available versions: (.+)$", re.MULTILINE)
_NOT_FETCHED = re.compile(r"Could not fetch URL \S+: (?!404 )(.+?)(?: - skipping)?$", re.MULTILINE)
# Of an exception as repr writes it: its type's names, the connection it was about, an error number and quotes left out.
_MESSAGE = re.compile(r"""(?:\w+\()+(?:["']?<[^<>]+ object at 0x\w+>[:,] )?(?:\d+, )?["']?(.+?)["']?""")


@dataclass(frozen=True)
class Releases:
    """Versions that pip could install here, newest first. `problem` is why the answer may not be whole: None where
    every index answered."""

    versions: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class Newest:
    """The newest release and what it asks for: None with the `problem`, or without one where no index has the name."""

    distribution: Distribution | None = None
    problem: str | None = None


class Registry:
    """Asks the indexes that pip is set up with."""

    def read_releases(self, name: str, timeout_s: float) -> Releases:
        """Every version of `name` for this Python and system, pre-releases included; yanked ones are not."""
        done = _run([*_PIP, "-vv", "index", "versions", "--pre", *_ASK, "--", name], timeout_s)
        return Releases(problem=done) if isinstance(done, str) else parse_releases(done.stdout + "\n" + done.stderr)

    def read_newest(self, name: str, timeout_s: float) -> Newest:
        """The newest release's metadata. Wheels only: a source archive would have to run its code to tell."""
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary", ":all:"]
        with TemporaryDirectory(prefix="console-pip-") as folder:
            report = Path(folder) / "report.json"
            done = _run([*_PIP, "-vv", "install", *options, "--report", str(report), *_ASK, "--", name], timeout_s)
            if isinstance(done, str):
                return Newest(problem=done)
            if done.returncode == 0 and report.is_file():
                return Newest(parse_report(report.read_text(encoding="utf-8")))
        return Newest(problem=_find_problem(done.stdout + "\n" + done.stderr))


def parse_releases(output: str) -> Releases:
    """What `pip -vv index versions` printed, both of its streams."""
    available = _AVAILABLE.search(output)
    versions = tuple(version.strip() for version in available[1].split(",")) if available else ()
    return Releases(versions, _find_problem(output))


def parse_report(output: str) -> Distribution | None:
    """The distribution in an installation report of pip; None where there is none."""
    installs = json.loads(output)["install"]
    if not installs:
        return None
    found = installs[0]["metadata"]
    return Distribution(
        canonicalize_name(found["name"]), found["version"], *parse_requirements(found.get("requires_dist", ()))
    )


def _find_problem(output: str) -> str | None:
    if "No module named pip" in output:
        return "pip is not installed in this environment"
    if "Ignoring indexes" in output:
        return "pip is set to use no index"
    failed = _NOT_FETCHED.search(output)
    if failed:
        return f"an index did not answer: {_shorten(failed[1])}"
    is_told = _AVAILABLE.search(output) or "No matching distribution found" in output
    return None if is_told else _last_line(output)


def _shorten(reason: str) -> str:
    """The message at the end of a chain of exceptions, which repeats the address several times."""
    cause = reason.rsplit("Caused by ", 1)[-1].strip(" ()")
    told = _MESSAGE.fullmatch(cause)
    return (told[1] if told else cause)[-200:]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "pip printed nothing")


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str] | str:
    """The ended process, or why there is none."""
    if timeout_s <= 0:
        return "the time for all questions was used up"
    try:
        # A folder of its own for temporary files: pip cannot clean up after itself when it is killed at its timeout.
        with TemporaryDirectory(prefix="console-pip-") as folder:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                check=False,
                env=os.environ | {"TMPDIR": folder},
            )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout_s:.0f} s"
    except OSError as error:
        return f"{command[0]} does not start: {error.strerror or error}"
