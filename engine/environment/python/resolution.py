"""Releases that would end the conflicts, as the package registry tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from engine.clock import Clock
from engine.deadline import map_within
from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.python.conflicts import advise_yielding, pip_install
from engine.environment.python.contests import Contest
from engine.environment.python.demands import PINS, collect_demands
from engine.environment.python.distributions import Distribution
from engine.environment.python.ranges import intersect, is_empty, newest_inside
from engine.environment.python.registry import Registry

BUDGET_S = 60.0
_MARGIN_S = 2.0  # to end what asks the registry
_MAX_CONTESTS = 8
_NUM_AT_ONCE = 4
_NOT_ASKED = f"only the first {_MAX_CONTESTS} are asked about"


@dataclass(frozen=True)
class Resolution:
    """What the registry has for one contested package.

    `install` is what to give pip so that everybody is suited; empty where no release does that. `is_inside` says that
    it takes no more than another version of the contested package. `newest` is its newest release of all.
    `problem` is why the registry could not tell.
    """

    contest: Contest
    install: tuple[str, ...] = ()
    is_inside: bool = False
    newest: str | None = None
    problem: str | None = None


def resolve(contests: Sequence[Contest], registry: Registry, clock: Clock) -> tuple[Resolution, ...]:
    """Ask for the first eight, four at once, for a minute at the most."""
    questions = _Questions(registry, clock, clock.monotonic() + BUDGET_S)
    asked = map_within(BUDGET_S + _MARGIN_S, questions.resolve, contests[:_MAX_CONTESTS], _NUM_AT_ONCE)
    return asked + tuple(Resolution(contest, problem=_NOT_ASKED) for contest in contests[_MAX_CONTESTS:])


def judge_resolution(resolutions: Sequence[Resolution]) -> Finding:
    """Pass where another version of each contested package ends its conflict, warn where dependants have to move to
    other releases too, and where none helps fail or warn as the conflict itself does. A registry that does not answer
    is a skip."""
    if not resolutions:
        return Finding(CheckStatus.SKIP, "no package is contested, so nothing is asked of the registry")
    told = [item for item in resolutions if item.problem is None]
    if not told:
        return Finding(CheckStatus.SKIP, f"the registry was not reachable: {resolutions[0].problem}")
    clauses = [describe_resolution(item) for item in resolutions[:_MAX_CONTESTS]]
    if len(resolutions) > _MAX_CONTESTS:
        clauses.append(f"and {len(resolutions) - _MAX_CONTESTS} more: {_NOT_ASKED}")
    observed = "; ".join(clauses)
    facts: dict[str, Fact] = {f"{item.contest.package}.newest": item.newest for item in told}
    facts |= {f"{item.contest.package}.install": " ".join(item.install) or None for item in told}
    if all(item.is_inside for item in resolutions):
        return Finding(CheckStatus.PASS, observed, _remedy(told), facts)
    if all(item.is_inside for item in told):
        silent = ", ".join(item.contest.package for item in resolutions if item.problem is not None)
        return Finding(CheckStatus.WARN, observed, f"Check again: the registry did not tell of {silent}.", facts)
    is_stuck = any(item.contest.is_needed and not item.install for item in told)
    return Finding(CheckStatus.FAIL if is_stuck else CheckStatus.WARN, observed, _remedy(told), facts)


def describe_resolution(resolution: Resolution) -> str:
    """One clause: `x: 1.9 suits everybody (the newest is 2.4)`."""
    package, newest = resolution.contest.package, resolution.newest
    if resolution.problem is not None:
        return f"{package}: the registry did not tell ({resolution.problem})"
    of_all = f" (the newest is {newest})" if newest else ""
    if resolution.install:
        return f"{package}: {' with '.join(resolution.install)} suits everybody{of_all}"
    if resolution.contest.exclusion:
        names = [demand.dependant for demand in resolution.contest.exclusion if demand.dependant != PINS]
        return f"{package}: the newest release of none of {', '.join(names)} ends the conflict"
    return f"{package}: no release is inside {resolution.contest.allowed or 'any version'}{of_all}"


@dataclass(frozen=True)
class _Questions:
    """The registry with the time that is left."""

    registry: Registry
    clock: Clock
    deadline_s: float

    def resolve(self, contest: Contest) -> Resolution:
        """What the registry has for one contest; a URL that is asked for needs no registry."""
        if contest.exclusion:
            return self._by_dependants(contest)
        if any(demand.url for demand in contest.demands):
            return Resolution(contest, (contest.requirement,), is_inside=True)
        return self._inside(contest)

    def _inside(self, contest: Contest) -> Resolution:
        found, newest, problem = self._find(contest.package, contest.allowed)
        if found is None:
            return Resolution(contest, newest=newest, problem=problem)
        return Resolution(contest, (f"{contest.name_with_extras}=={found}",), is_inside=True, newest=newest)

    def _by_dependants(self, contest: Contest) -> Resolution:
        """Does the newest release of one of those in conflict get along with the others."""
        problems = []
        for demand in contest.exclusion:
            if demand.dependant == PINS:
                continue
            answer = self.registry.read_newest(demand.dependant, self._left_s())
            if answer.distribution is None:
                problems += [answer.problem] if answer.problem else []
                continue
            allowed = allowed_with(contest, answer.distribution)
            found, newest, problem = (None, None, None) if allowed is None else self._find(contest.package, allowed)
            if found is not None:
                install = (f"{demand.dependant}=={answer.distribution.version}", f"{contest.name_with_extras}=={found}")
                return Resolution(contest, install, newest=newest)
            problems += [problem] if problem else []
        return Resolution(contest, problem=problems[0] if problems else None)

    def _find(self, package: str, allowed: SpecifierSet) -> tuple[str | None, str | None, str | None]:
        """The newest release inside the range, the newest of all, and why there may be others."""
        releases = self.registry.read_releases(package, self._left_s())
        newest = newest_inside(SpecifierSet(), releases.versions)
        return newest_inside(allowed, releases.versions), newest, releases.problem

    def _left_s(self) -> float:
        return self.deadline_s - self.clock.monotonic()


def allowed_with(contest: Contest, release: Distribution) -> SpecifierSet | None:
    """What the contested package may be once a dependant is at `release`; None where there is still no version."""
    others = [demand for demand in contest.demands if demand.dependant != release.name]
    extras = {demand.extra for demand in contest.demands if demand.dependant == release.name and demand.extra}
    asked_for = [Requirement(f"{release.name}[{','.join(sorted(extras))}]")] if extras else []
    new = [item for item in collect_demands({release.name: release}, asked_for) if item.package == contest.package]
    specifiers = [demand.specifier for demand in (*others, *new)]
    return None if is_empty(specifiers) else intersect(specifiers)


def _remedy(told: Sequence[Resolution]) -> str:
    """One pip command for all that has a way out, then who has to change for the rest."""
    install = dict.fromkeys(part for item in told for part in item.install)
    steps = [pip_install(tuple(install))] if install else []
    steps += [advise_yielding(item.contest) for item in told if not item.install and item.contest.exclusion]
    steps += [_advise_range(item) for item in told if not item.install and not item.contest.exclusion]
    return " Then: ".join(steps)


def _advise_range(resolution: Resolution) -> str:
    contest = resolution.contest
    who = ", ".join(demand.text for demand in contest.unmet)
    return f"{contest.package}: move to another version of, or remove, {who}: no release suits everybody."
