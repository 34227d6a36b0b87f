"""The environment page over checks with known outcomes."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from streamlit.testing.v1 import AppTest

from engine import Console
from engine.environment import CheckStatus
from engine.errors import StoreError
from tests.fakes import wait_until
from tests.pages.conftest import OpenPage, texts
from tests.pages.environment import REMEDY, FakeChecks


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> FakeChecks:
    """What the page runs."""
    fake = FakeChecks()
    monkeypatch.setattr("engine.environment.report.FAMILIES", fake.families)
    return fake


def check_now(console: Console, profile: str = "cpu-laptop", is_deep: bool = False) -> None:
    """A run as the button makes it, waited for."""
    console.environment.start(profile, is_deep=is_deep)
    console.environment.wait(10)


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def labels(page: AppTest) -> dict[str, bool]:
    """The families' expanders and whether each is open."""
    return {block.label: block.proto.expanded for block in page.expander}


def test_first_visit_starts_a_run_and_shows_its_progress(
    console: Console, open_page: OpenPage, checks: FakeChecks
) -> None:
    checks.gate.clear()
    page = open_page("environment")
    wait_until(lambda: len(console.environment.progress().results) == 2)  # type: ignore[union-attr]
    page.run()
    assert "Cancel" in [button.label for button in page.button]
    checks.gate.set()
    console.environment.wait(10)
    page.run()
    assert "Not fit: a check failed" in texts(page)
    assert len(checks.profiles) == 2  # planned once, run once


def test_cancel_keeps_the_report_before(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    checks.gate.clear()
    page = press(open_page("environment"), "Run the checks")
    press(page, "Cancel")
    console.environment.wait(10)
    page.run()
    assert not page.error
    assert console.environment.progress() is None
    assert "Not fit: a check failed" in texts(page)
    checks.gate.set()


def test_run_again_with_the_chosen_profile_and_depth(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    page = open_page("environment", profile="autoglm-9b", deep="true")
    press(page, "Run the checks")
    console.environment.wait(10)
    report = console.environment.latest()
    assert report is not None
    assert (report.profile, report.is_deep) == ("autoglm-9b", True)
    assert [check.id for check in report.checks] == ["host.os", "host.disk", "host.speed", "python.venv"]


def test_a_family_that_needs_attention_is_open_with_its_remedy(
    console: Console, open_page: OpenPage, checks: FakeChecks
) -> None:
    check_now(console)
    page = open_page("environment")
    families = labels(page)
    assert families["**Host** 1 fail, 1 pass"]
    assert not families["**Python** 1 skip"]
    assert page.code[0].value == REMEDY
    assert r"2 GB at /data\_1 \| \*full\*" in texts(page)


def test_filter_by_status_from_the_url(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    page = open_page("environment", status="skip")
    assert "**Python** 1 skip" in labels(page)
    assert not [label for label in labels(page) if label.startswith("**Host**")]
    empty = open_page("environment", status="error")
    assert "No check ended so" in empty.info[0].value


def test_changes_since_the_last_run(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    checks.status, checks.free_bytes = CheckStatus.PASS, 20_000_000_000
    check_now(console)
    assert "No earlier run to compare with" in texts(open_page("environment"))
    check_now(console)
    assert "Nothing changed since" in texts(open_page("environment"))
    checks.status, checks.free_bytes = CheckStatus.FAIL, 2_000_000_000
    check_now(console)
    page = open_page("environment")
    (label,) = [name for name in labels(page) if "since the run of" in name]
    assert label.startswith("**2 changes**")
    assert labels(page)[label]
    assert "**Disk**, status: pass → fail · :red[worse]" in texts(page)
    assert "**Disk**, free bytes: 20.0 GB → 2.0 GB" in texts(page)


def test_a_run_leaves_the_older_one_that_was_looked_at(
    console: Console, open_page: OpenPage, checks: FakeChecks
) -> None:
    check_now(console)
    (first,) = console.environment.history.list()
    page = press(open_page("environment", run=first.id), "Run the checks")
    assert "run" not in page.query_params
    console.environment.wait(10)


def test_an_older_run_from_the_url_and_back(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    checks.status = CheckStatus.PASS
    check_now(console)
    (first,) = console.environment.history.list()
    checks.status = CheckStatus.FAIL
    check_now(console)
    page = open_page("environment", run=first.id)
    assert "This machine is fit" in texts(page)
    assert "The run of" in page.info[0].value
    press(page, "Show the latest")
    assert "Not fit" in texts(page)


def test_a_run_that_is_not_kept(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    page = open_page("environment", run="nobody")
    assert "no longer kept" in page.warning[0].value
    assert "Not fit" in texts(page)


def test_report_can_be_taken_along(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    page = open_page("environment")
    markdown, text, junit = (code.value for code in page.code[-3:])
    assert "| FAIL | Host | Disk |" in markdown
    assert json.loads(text)["verdict"] == "fail"
    assert ElementTree.fromstring(junit).find(".//failure") is not None
    assert [button.label for button in page.get("download_button")] == [
        "Download environment.md",
        "Download environment.json",
        "Download environment.xml",
    ]


def test_history_lists_the_runs(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    check_now(console, "autoglm-9b", is_deep=True)
    table = open_page("environment").dataframe[0].value
    assert list(table["Profile"]) == ["autoglm-9b", "cpu-laptop"]
    assert list(table["Deep"]) == [True, False]


def test_a_bad_profile_is_one_sentence_and_the_rest_stays(
    console: Console, open_page: OpenPage, checks: FakeChecks
) -> None:
    folder = console.settings.home / "profiles"
    folder.mkdir()
    (folder / "mine.toml").write_text('title = "Mine"\n\n[host]\ncore = 3\n')
    check_now(console)
    page = press(open_page("environment", profile="mine"), "Run the checks")
    assert r"mine.toml:4: host.core" in page.error[0].value.replace("\\", "")
    assert "Not fit" in texts(page)


def test_a_history_that_cannot_be_read_is_told(
    console: Console, open_page: OpenPage, checks: FakeChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    check_now(console)
    monkeypatch.setattr(console.environment.history, "before", fail)
    page = open_page("environment")
    assert page.error[0].value == "the disk is full"


def test_versions_with_a_dash_for_what_is_absent(console: Console, open_page: OpenPage, checks: FakeChecks) -> None:
    check_now(console)
    table = open_page("environment").table[0].value
    shown = dict(zip(table["Component"], table["Version"], strict=True))
    assert shown["Streamlit"] == "1.67.0"
    if console.nvml.read().driver_version is None:
        assert shown["NVIDIA driver"] == "–"
