"""The environment page over reports made by hand."""

from __future__ import annotations

import json

import pytest

from engine import Console
from engine.environment import CheckResult, CheckStatus, EnvironmentReport
from tests.pages.conftest import OpenPage, texts

PASSED = CheckResult("host.os", "Operating system", "Linux", "Linux 6.1", CheckStatus.PASS, None, 0.01)
FAILED = CheckResult(
    "host.disk", "Disk", "10 GB free", "2 GB at /data_1 | *full*", CheckStatus.FAIL, "Run `df -h` and free space.", 0.2
)


@pytest.fixture
def num_runs(console: Console, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a run of the checks, which take no time here."""
    runs: list[int] = []

    def check() -> EnvironmentReport:
        runs.append(1)
        console.environment = EnvironmentReport((PASSED, FAILED), console.clock.wall())
        return console.environment

    monkeypatch.setattr(console, "check_environment", check)
    return runs


def test_first_visit_checks_once(open_page: OpenPage, num_runs: list[int]) -> None:
    page = open_page("environment")
    page.run()
    assert len(num_runs) == 1
    assert "Not fit: a check failed" in texts(page)


def test_run_again(open_page: OpenPage, num_runs: list[int]) -> None:
    page = open_page("environment")
    next(button for button in page.button if button.label == "Run again").click().run()
    assert len(num_runs) == 2


def test_known_report_is_not_taken_again(console: Console, open_page: OpenPage, num_runs: list[int]) -> None:
    console.environment = EnvironmentReport((PASSED,), console.clock.wall() - 7_200)
    page = open_page("environment")
    assert not num_runs
    assert "This machine is fit" in texts(page)
    assert "2 h ago" in texts(page)


def test_table_is_worst_first_with_remedies(open_page: OpenPage, num_runs: list[int]) -> None:
    table = open_page("environment").table[0].value
    assert list(table["Check"]) == ["**Disk**", "**Operating system**"]
    assert table["Observed"][0] == r"2 GB at /data\_1 \| \*full\*"
    assert table["Remedy"][0] == "Run `df -h` and free space."
    assert table["Remedy"][1] == "–"
    assert "fail" in table["Status"][0]


def test_report_can_be_taken_along(open_page: OpenPage, num_runs: list[int]) -> None:
    page = open_page("environment")
    markdown, text = (code.value for code in page.code)
    assert "| FAIL | Disk |" in markdown
    assert json.loads(text)["verdict"] == "fail"
    assert [button.label for button in page.get("download_button")] == [
        "Download environment.md",
        "Download environment.json",
    ]


def test_versions_with_a_dash_for_what_is_absent(console: Console, open_page: OpenPage, num_runs: list[int]) -> None:
    table = open_page("environment").table[1].value
    shown = dict(zip(table["Component"], table["Version"], strict=True))
    assert shown["Streamlit"] == "1.67.0"
    if console.nvml.read().driver_version is None:
        assert shown["NVIDIA driver"] == "–"
