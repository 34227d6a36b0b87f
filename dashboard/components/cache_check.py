"""Whether everything in the weights cache is as it was fetched, and how to mend what is not."""

from __future__ import annotations

import streamlit as st

from dashboard.components.formats import format_bytes, format_seconds, plain, plural
from dashboard.components.job_progress import follow_job
from dashboard.components.times import format_ago
from engine.weights.cache_jobs import CacheJobs, CacheProgress, CacheReport, Damaged


def report_text(report: CacheReport, now_s: float) -> str:
    """What was read, when, and how long it took, in Markdown."""
    when = f"{format_ago(report.ended_at_s, now_s)} in {format_seconds(report.took_s)}"
    read = f"{plural(report.num_models, 'model')}, {format_bytes(report.size_bytes)} compared with their digests {when}"
    if report.damaged:
        return f"The cache has {plural(len(report.damaged), 'damaged file')}: {read}."
    return f"{'No damage was found' if report.without_digests else 'The cache is as it was fetched'}: {read}."


def gap_text(report: CacheReport) -> str:
    """Which models could not be compared, and what helps."""
    return (
        f"Only headers were checked of {plain(', '.join(report.without_digests))}: unpacked before digests were kept. "
        "Remove it, and it is unpacked again, with digests, when it is next loaded."
    )


def damage_text(item: Damaged) -> str:
    """Which file, of which model, and what is wrong with it, in Markdown."""
    damage = item.damage
    return f"**{plain(damage.path)}** of {plain(item.model)}: {plain(damage.reason)}."


def mend_label(item: Damaged) -> str:
    """What mending does."""
    return "Fetch it again" if item.can_fetch else "Remove the model"


def mend_help(item: Damaged) -> str:
    """What mending means for the model."""
    if item.can_fetch:
        return "Takes this file out of the cache and fetches it, and it alone, from the hub."
    return "Takes the unpacked model out of the cache; it is unpacked from its GGUF file when it is next loaded."


def show_cache_check(jobs: CacheJobs, progress: CacheProgress | None, now_s: float) -> None:
    """Verify, follow, cancel; then the result, and a button for each damaged file. `progress` was read before the cache
    was."""
    st.button(
        "Verify the cache",
        icon=":material/fact_check:",
        key="cache-verify",
        disabled=progress is not None,
        on_click=_verify,
        args=(jobs,),
        help="Reads every byte of every model and compares it with the digest of its file.",
    )
    if progress is not None:
        follow_job(jobs, progress, _bar, key="cache", when_cancelled=None)
        return
    if jobs.error is not None:
        st.error(plain(jobs.error), icon=":material/error:")
    elif jobs.is_cancelled:
        st.caption("It was cancelled.")
    report = jobs.report()
    if report is not None:
        _show_report(jobs, report, now_s)


def _verify(jobs: CacheJobs) -> None:
    """Begin; where somebody else was faster, theirs is what is followed."""
    jobs.verify()


def _mend(jobs: CacheJobs, item: Damaged) -> None:
    jobs.mend(item)


def _bar(progress: CacheProgress) -> tuple[float, str]:
    share = "" if progress.fraction is None else f" {progress.fraction:.0%}"
    return progress.fraction or 0.0, plain(f"{progress.stage}{share}")


def _show_report(jobs: CacheJobs, report: CacheReport, now_s: float) -> None:
    if report.without_digests:
        st.warning(gap_text(report), icon=":material/warning:")
    if not report.damaged:
        st.success(report_text(report, now_s), icon=":material/check_circle:")
        return
    st.error(report_text(report, now_s), icon=":material/error:")
    for index, item in enumerate(report.damaged):
        with st.container(border=True):
            st.markdown(damage_text(item))
            st.button(
                mend_label(item),
                icon=":material/download:" if item.can_fetch else ":material/delete:",
                key=f"cache-mend-{index}",
                help=mend_help(item),
                on_click=_mend,
                args=(jobs, item),
            )
