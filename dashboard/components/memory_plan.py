"""A memory plan: the answer, what takes how much, and what else would fit; and planned beside measured once loaded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard.components.figures import graph_objects
from dashboard.components.formats import DASH, format_bytes, plain
from engine.models.comparison import Comparison, MemoryReading, meaning
from engine.models.plan import Alternative, MemoryPlan, Verdict
from engine.models.plan_text import asked_text, headline
from engine.models.weight_lines import Kind, Line, total_bytes

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Middle tones that can be told apart on a light and on a dark ground.
_COLORS = {Kind.WEIGHTS: "#2f8fae", Kind.CACHE: "#d97706", Kind.WORKING: "#5b63c9", Kind.FRAMEWORK: "#8a8f98"}
_FREE_COLOR = "#be2f4b"
# The mark of free memory is left out where it would press the bars together.
_MARK_WITHIN = 3.0
# A plan is right within a tenth (the project's own bound).
_TOLERANCE = 0.10


def verdict_look(verdict: Verdict) -> tuple[str, str]:
    """Colour and icon: it fits, it fits otherwise, it does not."""
    if verdict is Verdict.FITS:
        return "green", ":material/check_circle:"
    if verdict is Verdict.DOES_NOT_FIT:
        return "red", ":material/error:"
    return "orange", ":material/tune:"


def line_rows(lines: Iterable[Line]) -> dict[str, list[Any]]:
    """Lines as columns of a table; the largest share is told in percent of all."""
    lines = list(lines)
    total = total_bytes(lines) or 1
    return {
        "What": [line.what for line in lines],
        "Memory": [format_bytes(line.num_bytes) for line in lines],
        "Share": [100 * line.num_bytes / total for line in lines],
        "How": [line.how for line in lines],
    }


def alternative_line(item: Alternative) -> str:
    """One alternative as a line of Markdown."""
    if item.fits:
        return f":green[:material/check: **{plain(item.change)}**] · {format_bytes(item.needed_bytes)} needed"
    return f":gray[:material/close: {plain(item.change)} · {plain('; '.join(item.reasons))}]"


def plan_figure(plan: MemoryPlan) -> go.Figure:
    """Serving and the peak of loading, each as one bar of its kinds, and how much is free where that is near."""
    go = graph_objects()
    stages = {"Serving": plan.lines, "Loading": plan.loading}
    bars = []
    for kind, color in _COLORS.items():
        sums = [total_bytes(lines, kind) for lines in stages.values()]
        bars.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": str(kind),
                "y": list(stages),
                "x": [value / 1e9 for value in sums],
                "text": [f"{stage}, {kind}: {format_bytes(value)}" for stage, value in zip(stages, sums, strict=True)],
                "textposition": "none",
                "hovertemplate": "%{text}<extra></extra>",
                "marker": {"color": color},
            }
        )
    layout = {
        "height": 210,
        "barmode": "stack",
        "bargap": 0.35,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "xaxis": {"title": {"text": "GB"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": 1.1, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
    }
    figure = go.Figure(bars, layout)
    free = plan.budget.free_bytes
    if free <= _MARK_WITHIN * plan.needed_bytes:
        mark = {"color": _FREE_COLOR, "dash": "dash", "width": 2}
        figure.add_vline(free / 1e9, line=mark, annotation={"text": "free", "font": {"color": _FREE_COLOR}})
    return figure


def show_plan(plan: MemoryPlan, key: str = "memory-plan") -> None:
    """Verdict, reasons, bars, what else fits, and every line with its arithmetic."""
    color, icon = verdict_look(plan.verdict)
    st.markdown(f"##### :{color}[{icon} {plain(headline(plan))}]")
    st.caption(f"As asked: {plain(asked_text(plan))} · free: {plain(plan.budget.where)}")
    for reason in plan.reasons:
        st.markdown(f":{color}[:material/arrow_right:] {plain(reason)}")
    st.plotly_chart(plan_figure(plan), key=f"{key}-bars", alt="Planned memory for serving and for loading, by kind")
    if plan.alternatives:
        st.markdown("**Otherwise**  \n" + "  \n".join(map(alternative_line, plan.alternatives)))
    with st.expander("How it was computed", icon=":material/calculate:", key=f"{key}-details"):
        _show_lines(f"Serving: {format_bytes(plan.steady_bytes)}", plan.lines, f"{key}-serving")
        _show_lines(f"Loading, at its peak: {format_bytes(plan.loading_bytes)}", plan.loading, f"{key}-loading")
        st.caption(
            f"KV cache: {format_bytes(plan.cache_bytes_per_token)} a token; {format_bytes(plan.cache_limit_bytes)} "
            "are kept for caches after loading."
        )
        for note in plan.notes:
            st.caption(f":material/info: {plain(note)}")


def _show_lines(title: str, lines: Sequence[Line], key: str) -> None:
    st.markdown(f"**{title}**")
    st.dataframe(
        line_rows(lines),
        hide_index=True,
        column_config={
            "Share": st.column_config.ProgressColumn(format="%.0f %%", min_value=0, max_value=100, width="small"),
            "Memory": st.column_config.TextColumn(width="small"),
        },
        key=key,
        alt=title,
    )


def comparison_table(rows: Iterable[Comparison]) -> str:
    """Planned beside measured as a table in Markdown; a dash where nothing was measured."""
    lines = ["| What | Planned | Measured | Off by |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        measured = format_bytes(row.measured_bytes) if row.measured_bytes else DASH
        error = DASH if row.error_ratio is None else f"{row.error_ratio:+.1%}".replace("-0.0%", "+0.0%")
        lines.append(f"| {row.what} | {format_bytes(row.predicted_bytes)} | {measured} | {error} |")
    return "\n".join(lines)


def comparison_text(rows: Sequence[Comparison]) -> str:
    """Whether the plan was right, as a badge in Markdown; the worst of what was measured decides."""
    errors = [abs(row.error_ratio) for row in rows if row.error_ratio is not None]
    if not errors:
        return ":gray-badge[nothing measured yet]"
    worst = max(errors)
    color, word = ("green", "within") if worst <= _TOLERANCE else ("orange", "beyond")
    return f":{color}-badge[{word} {_TOLERANCE:.0%}: off by {worst:.1%} at most]"


def reading_notes(reading: MemoryReading) -> list[str]:
    """What each difference means, and what could not be told, a sentence each."""
    told = [f"{row.what}: {meaning(row)}" for row in reading.rows]
    return [f"{note[0].upper()}{note[1:]}." for note in (*told, *(f"not told: {reason}" for reason in reading.untold))]


def measured_text(reading: MemoryReading) -> str:
    """What was measured, where there is no plan beside it."""
    measured = reading.measured
    grown = DASH if measured.process_bytes is None else format_bytes(measured.process_bytes)
    return f"Measured: weights {format_bytes(measured.weights_bytes)}, growth of the process {grown}"


def show_comparison(reading: MemoryReading) -> None:
    """Planned beside measured of a loaded instance, and what the differences mean."""
    st.markdown(f"**Memory, planned and measured** {comparison_text(reading.rows)}")
    if reading.rows:
        st.markdown(comparison_table(reading.rows))
    else:
        st.caption(measured_text(reading))
    for note in reading_notes(reading):
        st.caption(plain(note))
