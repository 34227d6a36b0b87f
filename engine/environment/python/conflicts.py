"""Conflicts between installed distributions: those that `pip check` finds, and how they can be resolved."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.python.contests import DATA_ONLY, Contest
from engine.environment.python.demands import Demand
from engine.environment.python.distributions import Installed

_SHOWN_CONTESTS = 5
_SHOWN_DEMANDS = 4
_NEWEST_UNKNOWN = "the newest release in a range is unknown without the registry: a deep run asks it"


def judge_conflicts(contests: Sequence[Contest], installed: Installed) -> Finding:
    """Fail where the console runs on a dependant whose requirement is not met; warn about the others' conflicts, and
    about what an interrupted installation left behind. The facts are `<package>.installed`, `.dependants`, `.allowed`
    (None where no version is)."""
    facts: dict[str, Fact] = {"num_contested": len(contests), "num_leftovers": len(installed.leftovers)}
    for contest in contests:
        facts |= _facts(contest)
    if not contests and not installed.leftovers:
        return Finding(CheckStatus.PASS, _describe_whole(installed), facts=facts)
    clauses = [describe_contest(contest) for contest in contests[:_SHOWN_CONTESTS]]
    if len(contests) > _SHOWN_CONTESTS:
        clauses.append(f"and {len(contests) - _SHOWN_CONTESTS} more")
    if any(not contest.exclusion for contest in contests):
        clauses.append(_NEWEST_UNKNOWN)
    if installed.leftovers:
        clauses.append(f"left over by an interrupted installation: {', '.join(installed.leftovers)}")
    status = CheckStatus.FAIL if any(contest.is_needed for contest in contests) else CheckStatus.WARN
    return Finding(status, "; ".join(clauses), _remedy(contests, installed.leftovers), facts)


def describe_contest(contest: Contest) -> str:
    """`x 1.0: a 1 (>=2, unmet), b 3 (<3); >=2,<3 suits everybody`."""
    state = f"{contest.package} {contest.installed or 'is missing'}"
    return f"{state}: {_describe_demands(contest)}; {_describe_outcome(contest)}"


def pip_install(requirements: Sequence[str]) -> str:
    """The command line for this interpreter's pip, quoted for a POSIX shell."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def advise_yielding(contest: Contest) -> str:
    """Who has to change where no version suits everybody."""
    if not contest.yielding:
        group = ", ".join(demand.text for demand in contest.exclusion)
        return f"{contest.package}: move or remove some of {group}, which exclude each other."
    who = " and ".join(demand.text for demand in contest.yielding)
    rest = f"{contest.package}{contest.allowed_then}"
    return f"{contest.package}: move to another version of, or remove, {who}; {rest} suits all the others."


def _describe_demands(contest: Contest) -> str:
    """The dependants with their ranges, those in conflict first."""
    concerned = (*contest.exclusion, *contest.unmet)
    ordered = sorted(contest.demands, key=lambda demand: demand not in concerned)
    shown = [_describe_demand(demand, contest.installed) for demand in ordered[:_SHOWN_DEMANDS]]
    if len(ordered) > _SHOWN_DEMANDS:
        shown.append(f"and {len(ordered) - _SHOWN_DEMANDS} more")
    return ", ".join(shown)


def _describe_demand(demand: Demand, installed: str | None) -> str:
    return demand.text if installed is None or demand.is_met(installed) else f"{demand.text[:-1]}, unmet)"


def _describe_outcome(contest: Contest) -> str:
    if contest.exclusion:
        names = [demand.who for demand in contest.exclusion]
        if len(names) == 1:
            return f"no version suits {names[0]}"
        return f"no version suits {', '.join(names[:-1])} and {names[-1]} together"
    return f"{contest.allowed or 'any version'} suits everybody"


def _describe_whole(installed: Installed) -> str:
    distributions = installed.distributions.values()
    text = f"none among {len(distributions)} distributions"
    if unreadable := sum(len(distribution.unreadable) for distribution in distributions):
        text += f", {unreadable} requirement(s) cannot be read"
    if left_out := sorted(DATA_ONLY & installed.distributions.keys()):
        text += f"; {', '.join(left_out)} is left out: it is installed for its files alone"
    return text


def _facts(contest: Contest) -> dict[str, Fact]:
    name = contest.package
    return {
        f"{name}.installed": contest.installed,
        f"{name}.dependants": ", ".join(demand.text for demand in contest.demands),
        f"{name}.allowed": None if contest.exclusion else str(contest.allowed),
    }


def _remedy(contests: Sequence[Contest], leftovers: Sequence[str]) -> str:
    """One pip command for all that can be resolved, then who has to change for the worst of the rest."""
    resolvable = [contest.requirement for contest in contests if not contest.exclusion]
    steps = [pip_install(resolvable)] if resolvable else []
    steps += [advise_yielding(contest) for contest in contests if contest.exclusion][:_SHOWN_CONTESTS]
    steps += [shlex.join(["rm", "-r", *leftovers])] if leftovers else []
    return " Then: ".join(steps)
