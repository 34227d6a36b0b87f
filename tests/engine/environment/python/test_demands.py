from __future__ import annotations

from collections.abc import Sequence

from packaging.requirements import Requirement

from engine.environment.python.demands import Demand, collect_demands, find_needed
from engine.environment.python.distributions import Distribution


def make(name: str, *requires: str, version: str = "1.0") -> dict[str, Distribution]:
    return {name: Distribution(name, version, tuple(map(Requirement, requires)))}


def collect(installed: dict[str, Distribution], pins: Sequence[str] = ()) -> list[str]:
    return [f"{demand.package}: {demand.text}" for demand in collect_demands(installed, map(Requirement, pins))]


def test_a_pin_is_a_dependant_of_its_own() -> None:
    assert collect(make("a", "B_b>=1,<2"), ["b.b==1.5"]) == ["b-b: a 1.0 (<2,>=1)", "b-b: requirements.txt (==1.5)"]


def test_markers_decide_what_applies() -> None:
    installed = make("a", "b; sys_platform == 'never'", "c; python_version >= '3'", "d; extra == 'more'")
    assert collect(installed) == ["c: a 1.0 (any version)"]


def test_an_extra_applies_once_somebody_asks_for_it_also_through_others() -> None:
    installed = (
        make("a", "b[Fast_Mode]>=1")
        | make("b", "c>=3; extra == 'fast-mode'", "d[deep]; extra == 'fast-mode'", "e", "f; extra == 'unasked'")
        | make("d", "g<2; extra == 'deep'")
    )
    assert collect(installed) == [
        "b: a 1.0 (>=1)",
        "c: b[fast-mode] 1.0 (>=3)",
        "d: b[fast-mode] 1.0 (any version)",
        "e: b 1.0 (any version)",
        "g: d[deep] 1.0 (<2)",
    ]
    assert "c: b[fast-mode] 1.0 (>=3)" in collect(make("b", "c>=3; extra == 'fast-mode'"), ["b[fast-mode]==1"])


def test_extras_that_ask_for_each_other_end() -> None:
    installed = make("a", "a[y]; extra == 'x'", "a[x]; extra == 'y'", "b; extra == 'y'")
    assert collect(installed, ["a[x]"]) == [
        "a: a[x] 1.0 (any version)",
        "a: a[y] 1.0 (any version)",
        "a: requirements.txt (any version)",
        "b: a[y] 1.0 (any version)",
    ]


def test_a_url_is_told_in_place_of_a_range() -> None:
    assert collect(make("a", "b @ https://example.org/b-1.0.zip")) == ["b: a 1.0 (https://example.org/b-1.0.zip)"]


def test_what_is_installed_meets_a_range_as_pip_counts() -> None:
    (demand,) = collect_demands(make("a", "b>=1,<3"))
    assert demand.is_met("2.0+cpu")
    assert demand.is_met("2.0rc1"), "a pre-release that is there was wanted by somebody"
    assert not demand.is_met("3.0")
    assert not demand.is_met(None)


def test_the_console_needs_what_its_pins_need() -> None:
    def demand(dependant: str, package: str) -> Demand:
        (found,) = collect_demands(make(dependant, package))
        return found

    pins = collect_demands({}, [Requirement("a==1")])
    demands = [*pins, demand("a", "b"), demand("b", "a"), demand("x", "y"), demand("y", "b")]
    assert find_needed(demands) == {"a", "b"}
