"""The gate: a deployment asks it first, and does not begin on a machine that is not fit."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack, closing
from pathlib import Path

from engine.config import load_settings
from engine.environment.check import CheckResult, CheckStatus
from engine.environment.context import CheckContext
from engine.environment.export import sort_worst_first
from engine.environment.profile import Profile, resolve_profile
from engine.environment.report import EnvironmentReport, collect_report
from engine.errors import EnvironmentUnfitError
from engine.telemetry.nvml import Nvml

_UNFIT = frozenset({CheckStatus.FAIL, CheckStatus.ERROR})


def require(
    profile: str | Profile,
    *,
    home: Path | None = None,
    nvml: Nvml | None = None,
    families: Collection[str] | None = None,
    is_deep: bool = False,
    is_strict: bool = False,
    is_serving: bool = False,
) -> EnvironmentReport:
    """Check this machine now and return the report if it is fit.

    A check that could not be decided is no reason to go: it refuses as a failed one does. `is_strict` refuses on
    warnings too. `families` are those that matter here, all unless named. `is_serving` says that this very process
    listens on the console's port, which is right then. `home` is as in the settings unless given.

    Raises:
        EnvironmentUnfitError: at least one check refuses; `failed` has them, worst first.
        ProfileError: there is no such profile or family, or the profile is wrong.
        SettingsError: the console's settings are wrong.
    """
    settings = load_settings({"home": home} if home else None)
    with ExitStack() as stack:
        gpus = nvml or stack.enter_context(closing(Nvml()))
        given = (profile.title, profile) if isinstance(profile, Profile) else None
        name, asked = given or resolve_profile(str(profile), settings.home, gpus)
        context = CheckContext(asked, settings.home, gpus, settings.port, is_serving, host=settings.host)
        report = collect_report(context, name, families, is_deep)
    refuse_unfit(report, is_strict)
    return report


def refuse_unfit(report: EnvironmentReport, is_strict: bool = False) -> None:
    """Return if the report says go.

    Raises:
        EnvironmentUnfitError: at least one check refuses.
    """
    refusing = _UNFIT | {CheckStatus.WARN} if is_strict else _UNFIT
    failed = tuple(check for check in sort_worst_first(report.checks) if check.status in refusing)
    if failed:
        reasons = "\n".join(_reason(check) for check in failed)
        raise EnvironmentUnfitError(f"this machine is not fit for {report.profile}:\n{reasons}", failed)


def _reason(check: CheckResult) -> str:
    observed = check.observed.rstrip().removesuffix(".")
    return f"- {check.title} ({check.status}): {observed}. {check.remedy or ''}".rstrip()
