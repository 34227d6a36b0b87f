from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from engine.environment.python.contests import DATA_ONLY, Contest, find_contests
from engine.environment.python.distributions import Distribution, Installed, read_installed
from tests.engine.environment.python.planting import plant


def install(*distributions: tuple[str, str, list[str]]) -> Installed:
    return Installed(
        {name: Distribution(name, version, tuple(map(Requirement, wants))) for name, version, wants in distributions}
    )


def find(installed: Installed, *pins: str) -> list[Contest]:
    return list(find_contests(installed, map(Requirement, pins)))


def pip_check(*options: str) -> set[tuple[str, str]]:
    """The dependant and the package of each conflict that pip itself finds."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *options, "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout, done.stderr
    found = set()
    for line in done.stdout.splitlines():
        words = line.replace(",", " ").split()
        if "requires" in words:  # `a 1.0 requires b, which is not installed.`
            found.add((words[0], words[3].lower()))
        elif "requirement" in words:  # `a 1.0 has requirement b<2, but you have b 2.0.`
            found.add((words[0], words[words.index("have") + 1].lower()))
    return found


def our_check(contests: Sequence[Contest]) -> set[tuple[str, str]]:
    """The same by our reading, less what extras bring in, which pip's check never looks at."""
    return {
        (demand.dependant, contest.package) for contest in contests for demand in contest.unmet if demand.extra is None
    }


def test_a_planted_environment_is_judged_as_pip_judges_it(venv_site: Path) -> None:
    plant(venv_site, "core", "2.0")
    plant(venv_site, "Old_App", "1.0", ["core<2", "core>=1"])
    plant(venv_site, "new-app", "1.1", ["CORE>=2", "local==1.0", "pre>=1", "gone", "other; sys_platform == 'never'"])
    plant(venv_site, "local", "1.0+cpu")
    plant(venv_site, "pre", "1.0rc1")
    plant(venv_site, "wants-pre", "1", ["pre>=1.0rc1", "old.app @ https://example.org/old.zip"])
    plant(venv_site, "has-extra", "1", ["absent; extra == 'x'", "core>5; extra == 'x'"], ["x"])
    plant(venv_site, "asks-extra", "1", ["has-extra[x]"])
    contests = find_contests(read_installed([str(venv_site)]))
    expected = {("old-app", "core"), ("new-app", "gone"), ("new-app", "pre")}
    assert our_check(contests) == pip_check("--python", str(venv_site.parents[2] / "bin/python")) == expected
    beyond = {(demand.who, contest.package) for contest in contests for demand in contest.unmet if demand.extra}
    assert beyond == {("has-extra[x] 1", "absent"), ("has-extra[x] 1", "core")}


def test_this_environment_is_judged_as_pip_judges_it() -> None:
    ours = our_check(find_contests(read_installed()))
    assert ours == {(name, package) for name, package in pip_check() if name not in DATA_ONLY}


def test_what_suits_everybody_is_no_contest() -> None:
    assert find(install(("a", "1", ["c>=1"]), ("b", "1", ["c<3"]), ("c", "2", [])), "c==2", "a==1") == []


def test_a_pin_alone_that_is_not_met_is_left_to_the_check_of_pins() -> None:
    assert find(install(("c", "2", [])), "c==1", "missing==1") == []


def test_a_version_outside_one_range_leaves_a_range_for_all() -> None:
    (contest,) = find(install(("a", "1", ["c>=1,<2"]), ("b", "1", ["c>=1.5"]), ("c", "2.1", [])))
    assert (contest.package, contest.installed, str(contest.allowed)) == ("c", "2.1", "<2,>=1.5")
    assert [demand.text for demand in contest.unmet] == ["a 1 (<2,>=1)"]
    assert (contest.exclusion, contest.is_needed, contest.requirement) == ((), False, "c<2,>=1.5")


def test_two_that_exclude_each_other() -> None:
    (contest,) = find(install(("a", "1", ["c<2"]), ("b", "3", ["c>=2"]), ("d", "1", ["c>=1"]), ("c", "2", [])))
    assert [demand.who for demand in contest.exclusion] == ["a 1", "b 3"]
    assert [demand.who for demand in contest.yielding] == ["a 1"]
    assert str(contest.allowed_then) == ">=2"


def test_three_that_only_together_exclude_each_other() -> None:
    installed = install(("a", "1", ["c>=1"]), ("b", "1", ["c<=1"]), ("d", "1", ["c!=1.*"]), ("c", "2", []))
    (contest,) = find(installed)
    assert [demand.who for demand in contest.exclusion] == ["a 1", "b 1", "d 1"]


def test_a_pin_never_yields_even_where_all_that_is_installed_gets_along() -> None:
    (contest,) = find(install(("a", "1", ["c>=2"]), ("c", "2", [])), "c==1")
    assert [demand.who for demand in contest.exclusion] == ["a 1", "requirements.txt"]
    assert [demand.who for demand in contest.yielding] == ["a 1"]
    assert (contest.unmet[0].dependant, str(contest.allowed_then)) == ("requirements.txt", "==1")
    assert not contest.is_needed, "the console runs on c, and not on a"


def test_rather_what_the_console_does_not_run_on_yields() -> None:
    installed = install(("a", "1", ["c<2"]), ("z", "1", ["c>=2"]), ("c", "1", []))
    assert [demand.dependant for demand in find(installed, "a==1")[0].yielding] == ["z"]
    assert [demand.dependant for demand in find(installed, "z==1")[0].yielding] == ["a"]


def test_what_the_console_runs_on_comes_first() -> None:
    installed = install(
        ("app", "1", ["zoo"]), ("zoo", "1", ["y>=9"]), ("x", "1", ["b>=9"]), ("b", "1", []), ("y", "1", [])
    )
    contests = find(installed, "app==1")
    assert [(contest.package, contest.is_needed) for contest in contests] == [("y", True), ("b", False)]


def test_a_missing_package_is_asked_for_with_its_extras_or_its_url() -> None:
    contests = find(install(("a", "1", ["b[x]>=2", "u @ https://example.org/u.zip"]), ("d", "1", ["b[y,x]<4"])))
    assert [contest.requirement for contest in contests] == ["b[x,y]<4,>=2", "u @ https://example.org/u.zip"]
    assert [contest.installed for contest in contests] == [None, None]


@pytest.mark.parametrize("name", sorted(DATA_ONLY))
def test_what_is_installed_for_its_files_asks_for_nothing(name: str) -> None:
    assert find(install((name, "0.1.2", ["llama-cpp-python"]))) == []
