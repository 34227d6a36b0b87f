"""The environment report: verdict, checks worst first, versions, and the report to take along."""

from __future__ import annotations

from datetime import tzinfo

import streamlit as st

from dashboard.components.formats import DASH, plain
from dashboard.components.times import format_ago, format_moment
from engine.environment import CheckResult, CheckStatus, EnvironmentReport, to_json, to_markdown
from engine.environment.report import sort_worst_first

# colour, icon, and what it means as a verdict
_LOOKS = {
    CheckStatus.PASS: ("green", ":material/check_circle:", "This machine is fit"),
    CheckStatus.WARN: ("orange", ":material/warning:", "Fit, with warnings"),
    CheckStatus.FAIL: ("red", ":material/error:", "Not fit: a check failed"),
    CheckStatus.SKIP: ("gray", ":material/do_not_disturb_on:", "No check applies here"),
    CheckStatus.ERROR: ("red", ":material/help:", "Undecided: a check could not run"),
}

_COMPONENTS = {
    "python": "Python",
    "torch": "PyTorch",
    "torch_cuda": "CUDA that PyTorch was built with",
    "nvidia_driver": "NVIDIA driver",
    "driver_cuda": "CUDA that the driver supports",
    "transformers": "transformers",
    "safetensors": "safetensors",
    "streamlit": "Streamlit",
    "fastapi": "FastAPI",
}


def status_badge(status: CheckStatus) -> str:
    """The status as Markdown, by colour, icon and word."""
    color, icon, _ = _LOOKS[status]
    return f":{color}-badge[{icon} {status.value}]"


def counts_text(report: EnvironmentReport) -> str:
    """A badge a status that occurs."""
    return " ".join(
        f":{_LOOKS[status][0]}-badge[{count} {status.value}]" for status, count in report.counts().items() if count
    )


def show_verdict(report: EnvironmentReport, now_s: float, zone: tzinfo) -> None:
    """The verdict in a line, the counts, and when it was taken."""
    color, icon, meaning = _LOOKS[report.verdict]
    st.markdown(f"##### :{color}[{icon} {meaning}]")
    st.markdown(counts_text(report))
    st.caption(f"Taken {format_moment(report.taken_at_s, zone)}, {format_ago(report.taken_at_s, now_s)}")


def check_rows(checks: tuple[CheckResult, ...]) -> list[dict[str, str]]:
    """One row a check, worst first. A remedy is ours and may hold Markdown; what was observed is shown as it is."""
    return [
        {
            "Status": status_badge(check.status),
            "Check": f"**{plain(check.title)}**",
            "Observed": plain(check.observed),
            "Remedy": check.remedy or DASH,
            "Expected": plain(check.expected),
        }
        for check in sort_worst_first(checks)
    ]


def show_checks(report: EnvironmentReport) -> None:
    """All checks as a table."""
    import pandas as pd

    st.table(pd.DataFrame(check_rows(report.checks)), hide_index=True, border="horizontal")


def version_rows(versions: dict[str, str | None]) -> list[dict[str, str]]:
    """One row a component, under the name that people use for it."""
    return [
        {"Component": _COMPONENTS.get(name, name), "Version": plain(version or DASH)}
        for name, version in versions.items()
    ]


def show_versions(versions: dict[str, str | None]) -> None:
    """What is installed; a dash where nothing is."""
    import pandas as pd

    st.table(pd.DataFrame(version_rows(versions)), hide_index=True, border="horizontal")


def show_take_along(report: EnvironmentReport) -> None:
    """The report for a ticket, to copy or to save."""
    markdown, text = to_markdown(report), to_json(report)
    with st.expander("Copy this report into a ticket", icon=":material/content_copy:"):
        as_markdown, as_json = st.tabs(["Markdown", "JSON"])
        _show_text(as_markdown, markdown, "markdown", "environment.md", "text/markdown")
        _show_text(as_json, text, "json", "environment.json", "application/json")


def _show_text(tab: st.delta_generator.DeltaGenerator, text: str, language: str, name: str, mime: str) -> None:
    with tab:
        st.download_button(
            f"Download {name}", text, name, mime, icon=":material/download:", on_click="ignore", key=f"save-{name}"
        )
        st.code(text, language=language, height=300)
