"""The checks of a report by family: what needs attention is open and has its remedy to copy."""

from __future__ import annotations

from collections.abc import Collection

import streamlit as st

from dashboard.components.formats import format_seconds, plain, plural
from engine.environment import CheckResult, CheckStatus, EnvironmentReport
from engine.environment.check import worst
from engine.environment.export import family_title, group_skips, needs_attention, sort_worst_first

# colour and icon
LOOKS = {
    CheckStatus.PASS: ("green", ":material/check_circle:"),
    CheckStatus.WARN: ("orange", ":material/warning:"),
    CheckStatus.FAIL: ("red", ":material/error:"),
    CheckStatus.SKIP: ("gray", ":material/do_not_disturb_on:"),
    CheckStatus.ERROR: ("red", ":material/help:"),
}


def status_badge(status: CheckStatus, count: int | None = None) -> str:
    """The status as Markdown, by colour, icon and word, or with how many checks ended so."""
    color, icon = LOOKS[status]
    return f":{color}-badge[{icon} {status.value}]" if count is None else f":{color}-badge[{count} {status.value}]"


def choose_statuses() -> tuple[CheckStatus, ...]:
    """The filter; it lives in the URL. Nothing chosen means every status."""
    chosen = st.pills(
        "Show",
        [status.value for status in CheckStatus],
        selection_mode="multi",
        key="status",
        bind="query-params",
        help="None chosen means all of them.",
    )
    return tuple(CheckStatus(value) for value in chosen)


def show_families(report: EnvironmentReport, statuses: Collection[CheckStatus]) -> None:
    """A family an expander, in the order of the report; those with nothing of the wanted statuses are left out."""
    is_empty = True
    for family, checks in report.families.items():
        shown = tuple(check for check in checks if not statuses or check.status in statuses)
        if shown:
            is_empty = False
            _show_family(family, shown, is_filtered=bool(statuses))
    if is_empty:
        st.info("No check ended so. Choose another status, or none for all of them.", icon=":material/filter_alt_off:")


def _show_family(family: str, checks: tuple[CheckResult, ...], is_filtered: bool) -> None:
    is_open = is_filtered or any(needs_attention(check) for check in checks)
    _, icon = LOOKS[worst(check.status for check in checks)]
    label = f"**{family_title(family)}** {family_summary(checks)}"
    ordered = sort_worst_first(checks)
    with st.expander(label, expanded=is_open, icon=icon):
        for check in ordered:
            if needs_attention(check):
                show_check(check)
        quiet = group_skips(check for check in ordered if not needs_attention(check))
        st.markdown("  \n".join(map(quiet_line, quiet)))


def family_summary(checks: tuple[CheckResult, ...]) -> str:
    """`1 warn, 5 pass`, worst first."""
    statuses = [check.status for check in sort_worst_first(checks)]
    return ", ".join(f"{statuses.count(status)} {status}" for status in dict.fromkeys(statuses))


def show_check(check: CheckResult) -> None:
    """One check that needs attention. What was observed is shown letter by letter; the remedy can be copied whole."""
    st.markdown(f"{status_badge(check.status)} **{plain(check.title)}** · {plain(check.observed)}")
    st.caption(f"Expected: {plain(check.expected)} · `{check.id}` · took {format_seconds(check.taken_s)}")
    st.code(check.remedy or "", language=None, wrap_lines=True)


def quiet_line(group: tuple[CheckResult, ...]) -> str:
    """Checks that need none in a line of Markdown: one that passed, or those skipped for one reason."""
    titles = ", ".join(f"**{plain(check.title)}**" for check in group)
    return f"{status_badge(group[0].status)} {titles} · {plain(group[0].observed)}"


def counts_text(report: EnvironmentReport) -> str:
    """A badge a status that occurs."""
    return " ".join(status_badge(status, count) for status, count in report.counts().items() if count)


def checks_text(report: EnvironmentReport) -> str:
    """`41 checks`."""
    return plural(len(report.checks), "check")
