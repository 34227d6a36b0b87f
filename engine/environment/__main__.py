"""`python -m engine.environment`: check this machine against a profile and print the report.

Exit code 0 when it is fit, 1 when there are warnings and --strict was given, 2 when a check failed or could not be
decided, 3 when the tool itself failed: bad settings, a bad profile, a file that cannot be written; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from engine.config import Settings, load_settings
from engine.environment.check import CheckResult, CheckStatus
from engine.environment.context import CheckContext
from engine.environment.export import to_json, to_junit, to_markdown, to_text
from engine.environment.profile import list_profiles, load_profile, resolve_profile
from engine.environment.report import FAMILIES, EnvironmentReport, collect_report
from engine.errors import ConsoleError, ProfileError
from engine.telemetry.nvml import Nvml

FIT, WARNED, UNFIT, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130

logger = logging.getLogger(__name__)


class FileRefusedError(ConsoleError):
    """What was asked for cannot be written."""

    code = "file_refused"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Exit 3: argparse's own 2 means an unfit machine here."""
        self.print_usage(sys.stderr)
        self.exit(BROKEN, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report and return the exit code."""
    options = _parse(arguments)
    try:
        settings = load_settings({"home": options.home} if options.home else None)
        if options.list:
            _print(_describe_profiles(settings.home))
            return FIT
        report = _check(settings, options)
        _print(_format(report, options))
        if options.junit:
            _write_junit(report, options.junit)
    except ConsoleError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        return _refuse("interrupted: no report was taken", INTERRUPTED)
    except Exception:
        # Python's own exit code of a traceback, 1, means warnings here.
        logger.exception("the environment could not be checked; this is a fault of the tool")
        return BROKEN
    return _exit_code(report, options.strict)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m engine.environment", description=(__doc__ or "").split("\n", 1)[0])
    parser.epilog = "Exit code: 0 fit, 1 warnings with --strict, 2 unfit or undecided, 3 the tool itself failed."
    parser.add_argument("--profile", help="a profile's name or .toml file (default: as in the settings)")
    parser.add_argument("--family", action="append", choices=tuple(FAMILIES), help="check only this; may be repeated")
    parser.add_argument("--deep", action="store_true", help="also what takes long: GPU speed, all-reduce, pip")
    parser.add_argument("--strict", action="store_true", help="exit 1 when there are warnings")
    parser.add_argument("--home", type=Path, help="the console's folder (default: as in the settings)")
    parser.add_argument("--list", action="store_true", help="list the profiles and end")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--markdown", action="store_true", help="print Markdown, for a ticket")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML, for CI")
    return parser.parse_args(arguments)


def _check(settings: Settings, options: argparse.Namespace) -> EnvironmentReport:
    with closing(Nvml()) as nvml:
        name, profile = resolve_profile(options.profile or settings.environment_profile, settings.home, nvml)
        context = CheckContext(profile, settings.home, nvml, settings.port, host=settings.host)
        on_result = _print_progress if sys.stderr is not None and sys.stderr.isatty() else None
        return collect_report(context, name, options.family, options.deep, on_result)


def _print_progress(result: CheckResult) -> None:
    print(f"{result.status.upper():<5}  {result.title}, {result.taken_s:.1f} s", file=sys.stderr)


def _format(report: EnvironmentReport, options: argparse.Namespace) -> str:
    if options.json:
        return to_json(report) + "\n"
    return to_markdown(report) if options.markdown else to_text(report)


def _write_junit(report: EnvironmentReport, file: Path) -> None:
    try:
        file.write_text(to_junit(report), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise FileRefusedError(f"{file}: cannot be written: {reason}; name a file that can be") from error


def _describe_profiles(home: Path) -> str:
    return "".join(f"{name:<20} {_describe_profile(file)}\n" for name, file in list_profiles(home).items())


def _describe_profile(file: Path) -> str:
    try:
        return load_profile(file).title
    except ProfileError as error:
        return f"cannot be used: {error}"


def _print(text: str) -> None:
    """Write to stdout, whatever its encoding. A reader that has gone, such as `head`, has seen what it wanted."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    if sys.stdout is None:  # closed by whoever started this
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What Python still has to write at its end goes nowhere, instead of failing once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise FileRefusedError(f"the report cannot be printed: {error.strerror or error}") from error


def _exit_code(report: EnvironmentReport, is_strict: bool) -> int:
    if report.verdict in (CheckStatus.FAIL, CheckStatus.ERROR):
        return UNFIT
    return WARNED if is_strict and report.verdict is CheckStatus.WARN else FIT


def _refuse(message: str, exit_code: int = BROKEN) -> int:
    print(message, file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
