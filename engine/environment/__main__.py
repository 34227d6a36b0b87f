"""`python -m engine.environment`: print the report of this machine.

Exit code 0 when no check failed, 1 when one did, 2 when the settings or the command line are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from engine.config import load_settings
from engine.environment.check import CheckStatus
from engine.environment.report import collect_report, to_json, to_text
from engine.errors import SettingsError
from engine.telemetry import Nvml


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m engine.environment", description="Is this machine fit, and what must change?"
    )
    parser.add_argument("--home", type=Path, help="the console's folder (default: as in the settings)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings({"home": options.home} if options.home else None)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    with closing(Nvml()) as nvml:
        report = collect_report(settings.home, nvml)
    sys.stdout.write(to_json(report) + "\n" if options.json else to_text(report))
    return 1 if report.verdict is CheckStatus.FAIL else 0


if __name__ == "__main__":
    sys.exit(main())
