"""Who asks for which versions of a package, extras and markers worked out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from engine.environment.python.distributions import Distribution

PINS = "requirements.txt"


@dataclass(frozen=True)
class Demand:
    """One dependant's requirement. `version` is the dependant's, None for `requirements.txt`; `extra` is the extra of
    the dependant that brings the requirement in."""

    package: str
    specifier: SpecifierSet
    dependant: str
    version: str | None = None
    extra: str | None = None
    extras: frozenset[str] = frozenset()
    url: str | None = None

    @property
    def who(self) -> str:
        """`pandas 3.1.1`, `uvicorn[standard] 0.54.0` or `requirements.txt`."""
        name = f"{self.dependant}[{self.extra}]" if self.extra else self.dependant
        return f"{name} {self.version}" if self.version else name

    @property
    def text(self) -> str:
        """`pandas 3.1.1 (>=2,<4)`."""
        return f"{self.who} ({self.url or str(self.specifier) or 'any version'})"

    def is_met(self, version: str | None) -> bool:
        """Does an installed version do; None is not installed. A pre-release that is already there counts."""
        return version is not None and self.specifier.contains(version, prereleases=True)


def collect_demands(distributions: Mapping[str, Distribution], pins: Iterable[Requirement] = ()) -> tuple[Demand, ...]:
    """Every requirement that applies here. An extra's requirements apply once somebody asks for the extra, which pip's
    own check never looks at."""
    environment = {name: str(value) for name, value in default_environment().items()}
    demands = [_demand(pin, PINS) for pin in pins if _applies(pin, environment, "")]
    asked = {(demand.package, extra) for demand in demands for extra in demand.extras}
    waiting = [(name, "") for name in sorted(distributions)] + sorted(asked)
    while waiting:
        name, extra = waiting.pop()
        for demand in _demands_of(distributions.get(name), extra, environment):
            demands.append(demand)
            new = {(demand.package, wanted) for wanted in demand.extras} - asked
            asked |= new
            waiting += sorted(new)
    return tuple(sorted(demands, key=lambda demand: (demand.package, demand.who)))


def find_needed(demands: Iterable[Demand]) -> frozenset[str]:
    """What the pins need, directly or through others: what the console runs on."""
    wanted_by: dict[str, set[str]] = {}
    for demand in demands:
        wanted_by.setdefault(demand.dependant, set()).add(demand.package)
    needed: set[str] = set()
    waiting = [PINS]
    while waiting:
        new = wanted_by.get(waiting.pop(), set()) - needed
        needed |= new
        waiting += new
    return frozenset(needed)


def _demands_of(distribution: Distribution | None, extra: str, environment: dict[str, str]) -> list[Demand]:
    """What a distribution asks for without extras (`""`), or what one extra adds to that."""
    if distribution is None:
        return []
    return [
        _demand(requirement, distribution.name, distribution.version, extra or None)
        for requirement in distribution.requires
        if _applies(requirement, environment, extra) and not (extra and _applies(requirement, environment, ""))
    ]


def _demand(requirement: Requirement, dependant: str, version: str | None = None, extra: str | None = None) -> Demand:
    return Demand(
        package=canonicalize_name(requirement.name),
        specifier=requirement.specifier,
        dependant=dependant,
        version=version,
        extra=extra,
        extras=frozenset(map(canonicalize_name, requirement.extras)),
        url=requirement.url,
    )


def _applies(requirement: Requirement, environment: dict[str, str], extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})
