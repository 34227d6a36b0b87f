"""Is this machine fit: checks as data, the runner, and the report with a remedy for whatever is not."""

from __future__ import annotations

from engine.environment.check import Check, CheckResult, CheckStatus, Finding, run_checks
from engine.environment.report import (
    EnvironmentReport,
    collect_report,
    to_json,
    to_markdown,
    to_text,
    versions,
)

__all__ = [
    "Check",
    "CheckResult",
    "CheckStatus",
    "EnvironmentReport",
    "Finding",
    "collect_report",
    "run_checks",
    "to_json",
    "to_markdown",
    "to_text",
    "versions",
]
