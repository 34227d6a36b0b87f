from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckResult, CheckStatus
from engine.environment.export import (
    family_title,
    from_json,
    group_skips,
    needs_attention,
    sort_worst_first,
    to_dict,
    to_json,
    to_junit,
    to_markdown,
    to_text,
)
from engine.environment.report import EnvironmentReport
from tests.engine.environment.builders import report_of, report_with, reports, result

STATUS_ORDER = (CheckStatus.FAIL, CheckStatus.ERROR, CheckStatus.WARN, CheckStatus.PASS, CheckStatus.SKIP)
markup = "|\\*_<>[]#-+~&!1. )ab"
any_text = st.text(st.characters(exclude_categories=("Cs",)), max_size=80) | st.text(f"`\n\t{markup}", max_size=40)
printable = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="`"), max_size=60)


@pytest.fixture
def broken() -> EnvironmentReport:
    return report_of(
        result("host.system", title="System", observed="Debian 12"),
        result("host.disk", CheckStatus.WARN, "8 GB free", "Free 2 GB.", title="Disk"),
        result("gpu.driver", CheckStatus.FAIL, "535 is too old", "Install driver 550.", title="Driver"),
        result("containers.engine", CheckStatus.ERROR, "still running after 10 s", "Run again.", title="Engine"),
        result("kubernetes.api", CheckStatus.SKIP, "no context is configured", title="API server"),
    )


# JSON


def test_json_says_it_all(broken: EnvironmentReport) -> None:
    parsed = json.loads(to_json(broken))
    assert parsed["verdict"] == "fail"
    assert parsed["profile"] == "laptop"
    assert parsed["taken_at"] == "2023-11-14T22:13:20+00:00"
    assert parsed["counts"] == {"pass": 1, "warn": 1, "fail": 1, "skip": 1, "error": 1}
    assert parsed["checks"][1] == {
        "id": "host.disk",
        "title": "Disk",
        "expected": "something",
        "observed": "8 GB free",
        "status": "warn",
        "remedy": "Free 2 GB.",
        "taken_s": 0.25,
        "facts": {},
    }


@given(reports)
def test_json_round_trips(report: EnvironmentReport) -> None:
    assert from_json(to_json(report)) == report
    assert json.loads(to_json(report)) == to_dict(report)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"checks": [{"id": "a.b"}]}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_json(text)


# Order


@given(st.lists(st.sampled_from(CheckStatus), max_size=12))
def test_sorting_puts_the_verdict_first_and_skips_last(found: list[CheckStatus]) -> None:
    report = report_with(*found)
    ordered = sort_worst_first(report.checks)
    assert sorted(ordered, key=repr) == sorted(report.checks, key=repr)
    ranks = [STATUS_ORDER.index(check.status) for check in ordered]
    assert ranks == sorted(ranks)
    assert not found or ordered[0].status is report.verdict
    places = [(STATUS_ORDER.index(check.status), report.checks.index(check)) for check in ordered]
    assert places == sorted(places)


def test_what_needs_attention() -> None:
    assert [status for status in CheckStatus if needs_attention(result(status=status))] == ["warn", "fail", "error"]


def test_a_family_has_a_title() -> None:
    assert (family_title("containers"), family_title("tpu")) == ("Container engine", "tpu")


# Markdown


def test_markdown_opens_with_the_verdict_and_what_to_fix_first(broken: EnvironmentReport) -> None:
    assert to_markdown(broken) == (
        "## Environment: fail\n"
        "\n"
        "Profile laptop, without deep checks, taken 2023-11-14T22:13:20+00:00: "
        "1 pass, 1 warn, 1 fail, 1 skip, 1 error.\n"
        "\n"
        "### To fix, worst first\n"
        "\n"
        "1. **FAIL** Driver: 535 is too old\n"
        "   - Remedy: Install driver 550.\n"
        "2. **ERROR** Engine: still running after 10 s\n"
        "   - Remedy: Run again.\n"
        "3. **WARN** Disk: 8 GB free\n"
        "   - Remedy: Free 2 GB.\n"
        "\n"
        "| Status | Family | Check | Expected | Observed |\n"
        "|---|---|---|---|---|\n"
        "| FAIL | GPU | Driver | something | 535 is too old |\n"
        "| ERROR | Container engine | Engine | something | still running after 10 s |\n"
        "| WARN | Host | Disk | something | 8 GB free |\n"
        "| PASS | Host | System | something | Debian 12 |\n"
        "| SKIP | Kubernetes | API server | something | no context is configured |\n"
    )


def test_markdown_of_a_fit_machine_has_nothing_to_fix() -> None:
    text = to_markdown(report_with(CheckStatus.PASS, CheckStatus.SKIP))
    assert "To fix" not in text
    assert text.startswith("## Environment: pass\n")


@given(any_text, any_text, st.sampled_from(CheckStatus))
def test_no_text_breaks_a_row_of_the_table(observed: str, title: str, status: CheckStatus) -> None:
    text = to_markdown(report_of(result(status=status, observed=observed, title=title)))
    *_, row = text.rstrip("\n").split("\n")
    assert row.startswith("| ")
    assert re.sub(r"\\.", "", row).count("|") == 6
    assert text.count("\n") == len(text.splitlines())


def _shape(text: str) -> tuple[list[str], list[Any]]:
    """The blocks of a Markdown text as a renderer sees them, and its runs of inline content."""
    markdown_it = pytest.importorskip("markdown_it", reason="needs markdown-it-py")
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    return [token.type for token in tokens], [token for token in tokens if token.type == "inline"]


def _plain(inline: Any) -> str:
    return "".join(token.content for token in inline.children)


@given(any_text, any_text, any_text)
def test_no_text_changes_the_shape_of_the_markdown(observed: str, remedy: str, profile: str) -> None:
    def report(observed: str, remedy: str, profile: str) -> EnvironmentReport:
        checks = tuple(result(f"host.{status}", status, observed, remedy, title=observed) for status in CheckStatus)
        return report_of(*checks, profile=profile)

    types, inlines = _shape(to_markdown(report(observed, remedy, profile)))
    plain_types, _ = _shape(to_markdown(report("seen", "mend it", "laptop")))
    assert types == plain_types
    kinds = {child.type for inline in inlines for child in inline.children}
    assert kinds <= {"text", "code_inline", "strong_open", "strong_close", "text_special"}


@given((printable | st.text(markup, max_size=40)).filter(lambda text: bool(text.split())))
def test_a_reader_of_the_markdown_sees_the_text_as_it_is(text: str) -> None:
    _, inlines = _shape(to_markdown(report_of(result(status=CheckStatus.FAIL, observed=text, remedy=text))))
    shown = " ".join(text.split())
    assert [_plain(inline) for inline in inlines[3:5]] == [f"FAIL A check: {shown}", f"Remedy: {shown}"]
    assert _plain(inlines[-1]) == shown


def test_commands_stay_code() -> None:
    text = "Run `pip install 'torch<3' | tee log` or `a\\|b`."
    _, inlines = _shape(to_markdown(report_of(result(status=CheckStatus.FAIL, observed=text, remedy=text))))
    for inline in (inlines[4], inlines[-1]):
        code = [child.content for child in inline.children if child.type == "code_inline"]
        assert code[0] == "pip install 'torch<3' | tee log"
        assert len(code) == 2


# JUnit


def test_junit_has_a_suite_a_family_and_a_case_a_check(broken: EnvironmentReport) -> None:
    root = ElementTree.fromstring(to_junit(broken))
    assert (root.tag, root.get("name"), root.get("time")) == ("testsuites", "environment laptop", "0.500")
    assert [suite.get("name") for suite in root] == ["host", "gpu", "containers", "kubernetes"]
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert [child.tag for child in cases["host.system"]] == ["system-out"]
    assert [child.tag for child in cases["gpu.driver"]] == ["failure"]
    assert [child.tag for child in cases["containers.engine"]] == ["error"]
    assert [child.tag for child in cases["kubernetes.api"]] == ["skipped"]
    warning = cases["host.disk"].findtext("system-out")
    assert warning == "WARN\nexpected: something\nobserved: 8 GB free\nremedy: Free 2 GB."
    failure = cases["gpu.driver"][0]
    assert failure.get("message") == "535 is too old"
    assert "remedy: Install driver 550." in str(failure.text)
    assert cases["gpu.driver"].get("classname") == "environment.gpu"


@given(reports)
def test_junit_parses_and_its_counts_are_those_of_the_report(report: EnvironmentReport) -> None:
    root = ElementTree.fromstring(to_junit(report).encode())
    counts = report.counts()
    for attribute, status in (("failures", "fail"), ("errors", "error"), ("skipped", "skip")):
        assert sum(int(suite.attrib[attribute]) for suite in root) == counts[CheckStatus(status)]
    assert sum(int(suite.attrib["tests"]) for suite in root) == len(report.checks)
    assert sorted(case.attrib["name"] for case in root.iter("testcase")) == sorted(check.id for check in report.checks)
    for suite in root:
        assert len(suite) == int(suite.attrib["tests"])
        assert len(suite.findall("*/failure")) == int(suite.attrib["failures"])
        assert len(suite.findall("*/error")) == int(suite.attrib["errors"])
        assert len(suite.findall("*/skipped")) == int(suite.attrib["skipped"])


@given(st.text(st.characters(exclude_categories=()), max_size=40), st.sampled_from(CheckStatus))
def test_no_character_breaks_the_xml(text: str, status: CheckStatus) -> None:
    check = CheckResult("host.a", text, text, text, status, text, 0.1)
    (suite,) = ElementTree.fromstring(to_junit(report_of(check, profile=text)).encode())
    assert len(suite) == 1


def test_characters_that_xml_cannot_carry_are_marked() -> None:
    text = to_junit(report_of(result(status=CheckStatus.FAIL, observed="\x1b[31mred\x00 <&> \ufffe", remedy="x")))
    message = ElementTree.fromstring(text).find(".//failure")
    assert message is not None
    assert message.get("message") == "\ufffd[31mred\ufffd <&> \ufffd"


# Text


def test_text_has_families_then_what_to_fix_then_the_verdict(broken: EnvironmentReport) -> None:
    assert to_text(broken) == (
        "Host\n"
        "  PASS   System: Debian 12\n"
        "  WARN   Disk: 8 GB free\n"
        "\n"
        "GPU\n"
        "  FAIL   Driver: 535 is too old\n"
        "\n"
        "Container engine\n"
        "  ERROR  Engine: still running after 10 s\n"
        "\n"
        "Kubernetes\n"
        "  SKIP   API server: no context is configured\n"
        "\n"
        "To fix, worst first\n"
        "  1. Driver (fail): expected something\n"
        "     -> Install driver 550.\n"
        "  2. Engine (error): expected something\n"
        "     -> Run again.\n"
        "  3. Disk (warn): expected something\n"
        "     -> Free 2 GB.\n"
        "\n"
        "Verdict for laptop: fail (1 pass, 1 warn, 1 fail, 1 skip, 1 error), 0.5 s\n"
    )


@given(reports)
def test_text_has_a_line_a_check_and_ends_in_the_verdict(report: EnvironmentReport) -> None:
    lines = to_text(report).split("\n")
    assert len([line for line in lines if re.match(r"  (PASS |WARN |FAIL |SKIP |ERROR)  ", line)]) == len(report.checks)
    assert f": {report.verdict} (" in lines[-2]
    assert lines[-1] == ""
    num_wrong = sum(map(needs_attention, report.checks))
    assert len(lines) == len(report.checks) + 2 * len(report.families) + (2 + 2 * num_wrong if num_wrong else 0) + 2


@given(reports)
def test_the_first_thing_to_fix_is_the_worst(report: EnvironmentReport) -> None:
    wrong = [check for check in sort_worst_first(report.checks) if needs_attention(check)]
    if not wrong:
        assert "worst first" not in to_text(report) + to_markdown(report)
        return
    after = to_text(report).partition("To fix, worst first\n")[2]
    assert f"({wrong[0].status}): expected" in after.split("\n")[0]
    after = to_markdown(report).partition("### To fix, worst first\n\n")[2]
    assert after.startswith(f"1. **{report.verdict.upper()}** ")


def test_checks_skipped_for_one_reason_share_a_line() -> None:
    skips = tuple(CheckResult(f"gpu.{n}", f"Check {n}", "x", "no driver", CheckStatus.SKIP, None, 0.0) for n in "abc")
    other = CheckResult("gpu.d", "Check d", "x", "one GPU only", CheckStatus.SKIP, None, 0.0)
    same_words = CheckResult("host.e", "Check e", "x", "no driver", CheckStatus.PASS, None, 0.0)
    groups = group_skips((*skips[:2], same_words, other, skips[2]))
    assert groups == [skips, (same_words,), (other,)]
    report = EnvironmentReport((*skips, other, same_words), 0.0, "cpu-laptop")
    assert "  SKIP   Check a, Check b, Check c: no driver\n" in to_text(report)
    assert "| SKIP | GPU | Check a, Check b, Check c |  | no driver |\n" in to_markdown(report)
