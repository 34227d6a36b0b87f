"""Is this machine fit: checks as data against a profile, the runs, and the report with a remedy for whatever is not."""

from __future__ import annotations

from engine.environment.changes import Change, Direction, compare
from engine.environment.check import Check, CheckResult, CheckStatus, Finding, run_checks
from engine.environment.context import CheckContext
from engine.environment.export import from_json, to_json, to_junit, to_markdown, to_text
from engine.environment.gate import refuse_unfit, require
from engine.environment.profile import Profile, find_profile, list_profiles
from engine.environment.report import FAMILIES, EnvironmentReport, collect_report

__all__ = [
    "FAMILIES",
    "Change",
    "Check",
    "CheckContext",
    "CheckResult",
    "CheckStatus",
    "Direction",
    "EnvironmentReport",
    "Finding",
    "Profile",
    "collect_report",
    "compare",
    "find_profile",
    "from_json",
    "list_profiles",
    "refuse_unfit",
    "require",
    "run_checks",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_text",
]
