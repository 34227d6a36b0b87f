"""The names of the latencies and what they mean, the same wherever they are shown."""

from __future__ import annotations

import streamlit as st

from engine.latency import Metric

LABELS = {
    Metric.QUEUE: "Queue",
    Metric.PREFILL: "Prefill",
    Metric.TTFT: "TTFT",
    Metric.TPOT: "TPOT",
    Metric.E2E: "E2E",
}

DEFINITIONS = {
    Metric.QUEUE: "Waiting for a place in the batch: scheduled − received.",
    Metric.PREFILL: "Reading the prompt: first token − scheduled.",
    Metric.TTFT: "Time to first token: first token − received.",
    Metric.TPOT: "Time per output token: (last token − first token) / (n − 1), for n > 1 output tokens.",
    Metric.E2E: "End to end: finished − received.",
}


def show_terms() -> None:
    """What the numbers mean and how they were reckoned."""
    with st.expander("What these numbers mean", icon=":material/menu_book:"):
        st.markdown("\n".join(f"- **{LABELS[metric]}.** {DEFINITIONS[metric]}" for metric in Metric))
        st.markdown(
            "Percentiles are exact over the stored requests (linear interpolation between ranks), not read off a"
            " histogram. P95 is the value that 95 of 100 requests do not exceed. A latency that a request never"
            " reached is left out, so counts differ: a request cancelled in the queue has no TTFT. An empty sample"
            " has no percentile and shows a dash."
        )
