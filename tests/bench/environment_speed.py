"""A quick run of the environment checks: by itself in a warm process, and as the whole command."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from engine.environment import CheckContext, collect_report, find_profile
from engine.telemetry import Nvml
from tests.bench.results import Figure

_NUM_RUNS = 5
_TIMEOUT_S = 60.0


def measure(home: Path) -> Iterator[Figure]:
    """Medians of five; what else the machine has (container engine, cluster) is checked too and takes its time."""
    name, profile = find_profile("cpu-laptop", home)
    with closing(Nvml()) as nvml:
        reports = [collect_report(CheckContext(profile, home, nvml), name) for _ in range(_NUM_RUNS)]
    yield Figure("environment.quick_s", statistics.median(report.taken_s for report in reports), "s")
    yield Figure("environment.command_s", statistics.median(_run_command(home) for _ in range(_NUM_RUNS)), "s")


def _run_command(home: Path) -> float:
    began = time.perf_counter()
    environment = os.environ | {"CONSOLE_HOME": str(home)}
    command = [sys.executable, "-m", "engine.environment", "--profile", "cpu-laptop"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False)
    return time.perf_counter() - began
