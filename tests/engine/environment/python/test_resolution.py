from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from packaging.requirements import Requirement

from engine.clock import SystemClock
from engine.environment.check import CheckStatus, Finding
from engine.environment.python.contests import find_contests
from engine.environment.python.distributions import Distribution, Installed
from engine.environment.python.registry import Newest, Registry, Releases
from engine.environment.python.resolution import BUDGET_S, judge_resolution, resolve
from tests.engine.environment.python.conftest import LocalIndex
from tests.engine.environment.python.test_contests import install

PIP = f"{sys.executable} -m pip install"


@dataclass
class PlainRegistry(Registry):
    """A registry of plain data."""

    releases: dict[str, Releases] = field(default_factory=dict)
    newest: dict[str, Newest] = field(default_factory=dict)
    timeouts_s: list[float] = field(default_factory=list)

    def read_releases(self, name: str, timeout_s: float) -> Releases:
        self.timeouts_s.append(timeout_s)
        return self.releases.get(name, Releases())

    def read_newest(self, name: str, timeout_s: float) -> Newest:
        return self.newest.get(name, Newest(problem="offline"))


def judge(registry: Registry, installed: Installed, *pins: str) -> Finding:
    contests = find_contests(installed, map(Requirement, pins))
    return judge_resolution(resolve(contests, registry, SystemClock()))


OUTSIDE = install(("a", "1", ["c[x]>=1,<2"]), ("b", "1", ["c>=1.5"]), ("c", "2.1", []))
EXCLUDING = install(("a", "1", ["c<2"]), ("b", "1", ["c>=2"]), ("c", "2.1", []))


def test_the_newest_release_inside_the_range_is_found_in_a_real_index(index: LocalIndex) -> None:
    for version in ("1.0", "1.5", "1.9", "2.1"):
        index.add("c", version)
    finding = judge(Registry(), OUTSIDE)
    assert (finding.status, finding.observed) == (
        CheckStatus.PASS,
        "c: c[x]==1.9 suits everybody (the newest is 2.1)",
    )
    assert finding.remedy == f"{PIP} 'c[x]==1.9'"
    assert finding.facts == {"c.newest": "2.1", "c.install": "c[x]==1.9"}


def test_a_dependants_newer_release_ends_the_exclusion(index: LocalIndex) -> None:
    for version in ("1.0", "2.1", "2.4"):
        index.add("c", version)
    index.add("a", "1", ("c<2",))
    index.add("a", "1.7", ("c<2.5",))
    finding = judge(Registry(), EXCLUDING, "b==1")
    assert (finding.status, finding.observed) == (
        CheckStatus.WARN,
        "c: a==1.7 with c==2.4 suits everybody (the newest is 2.4)",
    )
    assert finding.remedy == f"{PIP} a==1.7 c==2.4"


@pytest.mark.parametrize(("pin", "status"), [("a==1", CheckStatus.FAIL), ("d==1", CheckStatus.WARN)])
def test_dependants_whose_newest_releases_exclude_each_other_too(pin: str, status: CheckStatus) -> None:
    stays = {
        name: Newest(Distribution(name, "9", (Requirement(f"c{wish}"),))) for name, wish in (("a", "<2"), ("b", ">=3"))
    }
    finding = judge(PlainRegistry(newest=stays), EXCLUDING, pin)
    assert finding.status is status
    assert finding.observed == "c: the newest release of none of a, b ends the conflict"
    assert "move to another version of, or remove" in (finding.remedy or "")
    assert finding.facts["c.install"] is None


def test_dependants_that_no_index_knows_are_no_way_out(index: LocalIndex) -> None:
    index.add("c", "2.1")
    finding = judge(Registry(), EXCLUDING, "b==1")
    assert (finding.status, finding.facts["c.install"]) == (CheckStatus.FAIL, None)


def test_a_range_without_a_release_names_who_has_to_change() -> None:
    finding = judge(PlainRegistry({"c": Releases(("2.1", "1.0"))}), OUTSIDE)
    assert finding.status is CheckStatus.WARN
    assert finding.observed == "c: no release is inside <2,>=1.5 (the newest is 2.1)"
    assert finding.remedy == "c: move to another version of, or remove, a 1 (<2,>=1): no release suits everybody."


def test_an_index_that_left_something_out_decides_nothing() -> None:
    finding = judge(PlainRegistry({"c": Releases(("2.1",), "an index did not answer: refused")}), OUTSIDE)
    assert (finding.status, finding.remedy) == (CheckStatus.SKIP, None)
    assert finding.observed == "the registry was not reachable: an index did not answer: refused"


def test_a_registry_that_is_not_reachable_is_a_skip(pip_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    for installed in (OUTSIDE, EXCLUDING):
        finding = judge(Registry(), installed)
        assert finding.status is CheckStatus.SKIP
        assert finding.observed.startswith("the registry was not reachable: ")


def test_what_the_registry_told_counts_beside_what_it_did_not() -> None:
    both = Installed({**OUTSIDE.distributions, **install(("d", "1", ["e<2"]), ("e", "3", [])).distributions})
    registry = PlainRegistry({"c": Releases(("1.6",)), "e": Releases(problem="no answer within 5 s")})
    finding = judge(registry, both)
    assert finding.status is CheckStatus.WARN
    assert "e: the registry did not tell (no answer within 5 s)" in finding.observed
    assert finding.remedy == "Check again: the registry did not tell of e."


def test_a_url_that_is_asked_for_needs_no_registry() -> None:
    registry = PlainRegistry()
    finding = judge(registry, install(("a", "1", ["b @ https://example.org/b.zip"])))
    assert finding.status is CheckStatus.PASS
    assert finding.remedy == f"{PIP} 'b @ https://example.org/b.zip'"
    assert registry.timeouts_s == []


def test_an_extra_that_no_newer_release_needs_any_more() -> None:
    installed = install(("a", "1", ["c<2; extra == 'x'"]), ("b", "1", ["c>=2", "a[x]"]), ("c", "2", []))
    answer = Newest(Distribution("a", "2", (Requirement("c<9; extra == 'x'"),)))
    finding = judge(PlainRegistry({"c": Releases(("9.0", "8.5", "2"))}, {"a": answer}), installed)
    assert finding.remedy == f"{PIP} a==2 c==8.5"


def test_nothing_contested_asks_nothing() -> None:
    registry = PlainRegistry()
    finding = judge(registry, install(("a", "1", [])))
    assert (finding.status, registry.timeouts_s) == (CheckStatus.SKIP, [])
    assert "no package is contested" in finding.observed


def test_the_questions_share_one_minute_and_end_at_eight() -> None:
    registry = PlainRegistry({f"gone{number}": Releases(("1.0",)) for number in range(20)})
    finding = judge(registry, install(("a", "1", [f"gone{number}" for number in range(20)])))
    assert len(registry.timeouts_s) == 8
    assert all(0 < timeout_s <= BUDGET_S for timeout_s in registry.timeouts_s)
    assert finding.observed.endswith("and 12 more: only the first 8 are asked about")


def test_a_registry_that_hangs_does_not_keep_the_process_from_ending() -> None:
    """As after a run whose check was no longer waited for."""
    script = """
import threading, time
from engine.clock import SystemClock
from engine.environment.python.contests import find_contests
from engine.environment.python.resolution import resolve
from tests.engine.environment.python.test_contests import install
asked = threading.Event()
class Hanging:
    def read_releases(self, name, timeout_s):
        asked.set()
        time.sleep(30)
contests = find_contests(install(("a", "1", ["gone"])), ())
threading.Thread(target=resolve, args=(contests, Hanging(), SystemClock()), daemon=True).start()
print(asked.wait(10))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "True\n"
