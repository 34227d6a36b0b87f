"""The report as text: JSON and back, Markdown for a ticket, JUnit XML for CI, lines for a terminal."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

from engine.environment.check import WORST_FIRST, CheckResult, CheckStatus, result_from
from engine.environment.report import FAMILIES, EnvironmentReport

# What Markdown would read as something else than text; an underscore inside a word is one.
_MARKUP = re.compile(r"[\\<*\[|`&]|(?<![^\W_])_|_(?![^\W_])")
_CELL_END = re.compile(r"[\\|]")
_ESCAPED = r"\\\g<0>"
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_dict(report: EnvironmentReport) -> dict[str, Any]:
    """The report in plain data: verdict, profile, taken_at (ISO 8601, UTC), taken_at_s, taken_s, counts, checks."""
    return {
        "verdict": report.verdict,
        "profile": report.profile,
        "is_deep": report.is_deep,
        "taken_at": _iso(report.taken_at_s),
        "taken_at_s": report.taken_at_s,
        "taken_s": report.taken_s,
        "machine": report.machine,
        "versions": dict(report.versions),
        "counts": report.counts(),
        "checks": [dataclasses.asdict(check) for check in report.checks],
    }


def to_json(report: EnvironmentReport) -> str:
    """`to_dict` as indented JSON."""
    return json.dumps(to_dict(report), indent=2, ensure_ascii=False)


def from_json(text: str) -> EnvironmentReport:
    """The report that `to_json` wrote."""
    data = json.loads(text)
    checks = tuple(result_from(check) for check in data["checks"])
    return EnvironmentReport(
        checks,
        data["taken_at_s"],
        data["profile"],
        data["is_deep"],
        data["taken_s"],
        data["versions"],
        data["machine"],
    )


def to_markdown(report: EnvironmentReport) -> str:
    """The report for an issue or a ticket: the verdict, what to fix first, then every check as a table."""
    counted = ", ".join(f"{number} {status}" for status, number in report.counts().items() if number)
    lines = [
        f"## Environment: {report.verdict}",
        "",
        f"Profile {_inline(report.profile)}, {'with' if report.is_deep else 'without'} deep checks, "
        f"taken {_iso(report.taken_at_s)}: {counted}.",
        "",
        *_subject(report),
    ]
    wrong = [check for check in sort_worst_first(report.checks) if needs_attention(check)]
    if wrong:
        lines += ["### To fix, worst first", ""]
        for number, check in enumerate(wrong, 1):
            lines.append(f"{number}. **{check.status.upper()}** {_inline(check.title)}: {_inline(check.observed)}")
            lines.append(f"   - Remedy: {_inline(check.remedy or 'none known')}")
        lines.append("")
    lines += ["| Status | Family | Check | Expected | Observed |", "|---|---|---|---|---|"]
    for group in group_skips(sort_worst_first(report.checks)):
        first, titles = group[0], ", ".join(check.title for check in group)
        expected = first.expected if len(group) == 1 else ""
        row = (first.status.upper(), family_title(first.family), titles, expected, first.observed)
        lines.append("| " + " | ".join(map(_cell, row)) + " |")
    return "\n".join(lines) + "\n"


def _subject(report: EnvironmentReport) -> list[str]:
    """Which machine and what is on it, for a reader who does not know it."""
    known = [f"{name} {version}" for name, version in report.versions.items() if version is not None]
    if not known:
        return []
    return [_inline(f"Machine {report.machine or 'without a name'}: {', '.join(known)}."), ""]


def to_text(report: EnvironmentReport) -> str:
    """The report for a terminal: families in order with a line a check (or a line for those skipped for one reason),
    then what to fix first and the verdict."""
    lines = []
    for family, checks in report.families.items():
        lines.append(family_title(family))
        for group in group_skips(checks):
            titles = ", ".join(_line(check.title) for check in group)
            lines.append(f"  {group[0].status.upper():<5}  {titles}: {_line(group[0].observed)}")
        lines.append("")
    wrong = [check for check in sort_worst_first(report.checks) if needs_attention(check)]
    if wrong:
        lines.append("To fix, worst first")
        for number, check in enumerate(wrong, 1):
            lines.append(f"  {number}. {_line(check.title)} ({check.status}): expected {_line(check.expected)}")
            lines.append(f"     -> {_line(check.remedy or 'none known')}")
        lines.append("")
    counted = ", ".join(f"{number} {status}" for status, number in report.counts().items() if number)
    lines.append(f"Verdict for {_line(report.profile)}: {report.verdict} ({counted}), {report.taken_s:.1f} s")
    return "\n".join(lines) + "\n"


def to_junit(report: EnvironmentReport) -> str:
    """The report as JUnit XML: a suite a family, a case a check. A warning is a pass whose text is in system-out."""
    root = ElementTree.Element("testsuites", name=_xml(f"environment {report.profile}"), time=f"{report.taken_s:.3f}")
    for family, checks in report.families.items():
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(family),
            tests=str(len(checks)),
            failures=str(_count(checks, CheckStatus.FAIL)),
            errors=str(_count(checks, CheckStatus.ERROR)),
            skipped=str(_count(checks, CheckStatus.SKIP)),
            time=f"{max(check.taken_s for check in checks):.3f}",
            timestamp=_iso(report.taken_at_s),
        )
        for check in checks:
            _add_case(suite, check)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def sort_worst_first(checks: tuple[CheckResult, ...]) -> list[CheckResult]:
    """What needs attention on top, skips last, otherwise in the order given."""
    order = (*WORST_FIRST, CheckStatus.SKIP)
    return sorted(checks, key=lambda check: order.index(check.status))


def group_skips(checks: Iterable[CheckResult]) -> list[tuple[CheckResult, ...]]:
    """The checks in their order, those of a family that were skipped for the same reason together."""
    groups: dict[tuple[str, ...], list[CheckResult]] = {}
    for check in checks:
        key = (check.family, check.observed) if check.status is CheckStatus.SKIP else (check.id, "", "")
        groups.setdefault(key, []).append(check)
    return [tuple(group) for group in groups.values()]


def needs_attention(check: CheckResult) -> bool:
    """Is there something to do about it."""
    return check.status in (CheckStatus.FAIL, CheckStatus.ERROR, CheckStatus.WARN)


def family_title(family: str) -> str:
    """`Container engine` for `containers`; a family of another version of the console goes by its own name."""
    return FAMILIES[family][0] if family in FAMILIES else family


def _add_case(suite: ElementTree.Element, check: CheckResult) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        classname=_xml(f"environment.{check.family}"),
        name=_xml(check.id),
        time=f"{check.taken_s:.3f}",
    )
    text = _xml(f"expected: {check.expected}\nobserved: {check.observed}\nremedy: {check.remedy or '-'}")
    kind = {CheckStatus.FAIL: "failure", CheckStatus.ERROR: "error", CheckStatus.SKIP: "skipped"}.get(check.status)
    if kind is None:
        ElementTree.SubElement(case, "system-out").text = f"{check.status.upper()}\n{text}"
    else:
        ElementTree.SubElement(case, kind, message=_xml(check.observed)).text = text


def _count(checks: tuple[CheckResult, ...], status: CheckStatus) -> int:
    return sum(check.status is status for check in checks)


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="seconds")


def _line(text: str) -> str:
    return " ".join(text.split())


def _inline(text: str) -> str:
    """One line of Markdown that shows the text as it is; a pair of backticks stays code."""
    return "`".join(part if is_code else _MARKUP.sub(_ESCAPED, part) for is_code, part in _split_code(_line(text)))


def _cell(text: str) -> str:
    """The same as a table cell, which a pipe would end even in code."""
    parts = _split_code(_line(text))
    return "`".join((_CELL_END if is_code else _MARKUP).sub(_ESCAPED, part) for is_code, part in parts)


def _split_code(line: str) -> list[tuple[bool, str]]:
    if "``" in line or line.count("`") % 2:
        return [(False, line)]
    return [(index % 2 == 1, part) for index, part in enumerate(line.split("`"))]


def _xml(text: str) -> str:
    """Without the characters that XML 1.0 cannot carry."""
    return _NOT_XML.sub("\ufffd", text)
