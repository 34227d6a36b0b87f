"""The figures of an experiment, a row a variant, against the original."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from dashboard.components.errors import show_error
from dashboard.components.formats import DASH, plain
from engine.lab import Estimate, Experiment, Speed, VariantResult

_CHANGE = "Δ "
_HELP = {
    "Weights, MB": "Bytes of all parameters in memory, in millions.",
    "Process, MB": "By how much the process grew on the device; the first variant also counts code it imports.",
    "Load, s": "Until the model is in memory. The first load of a GGUF file includes unpacking it, once.",
    "TTFT, ms": "Time to first token of a single stream: the median of the repeats.",
    "1 stream": "Output tokens a second, from submission to the last token: the median of the repeats.",
    "8 streams": "The same with eight requests at once, over all of them.",
    "Perplexity": "exp of the mean negative log-likelihood a token of the text. Lower is better.",
    "Perplexity 95 %": "Bootstrap over blocks of the text.",
    _CHANGE + "perplexity": "Against the original, over the same blocks.",
    _CHANGE
    + "perplexity 95 %": "In percent, from the same blocks in pairs, so it is narrower than the perplexity's own.",
    "KL": "Mean KL(original || variant) of the next-token distribution, nats a token. 0: the same distribution.",
    "KL P95": "The 95th percentile over the tokens of the text.",
    "Same top": "Share of tokens for which both find the same one most likely.",
}


def sorted_results(experiment: Experiment) -> list[VariantResult]:
    """The original first, then by divergence from it, the least first; what has none comes last."""

    def key(result: VariantResult) -> tuple[bool, bool, float]:
        kl = None if result.quality is None else result.quality.kl
        return not result.is_reference, kl is None, 0.0 if kl is None else kl.value

    return sorted(experiment.results, key=key)


def change_pct(value: float | None, original: float | None) -> float | None:
    """By how many percent `value` is above `original`; None when either is missing."""
    return None if value is None or not original else (value / original - 1) * 100


def interval_text(found: Estimate | None, format_value: Callable[[float], str]) -> str | None:
    """`21.4 – 23.0`; None without an interval."""
    if found is None or found.low is None or found.high is None:
        return None
    return f"{format_value(found.low)} – {format_value(found.high)}"


def quality_columns(experiment: Experiment) -> dict[str, list[Any]]:
    """Size and quality."""
    return _to_columns(experiment, _quality_row)


def speed_columns(experiment: Experiment) -> dict[str, list[Any]]:
    """Speed, loading and memory."""
    return _to_columns(experiment, _speed_row)


def _to_columns(
    experiment: Experiment, row_of: Callable[[VariantResult, VariantResult | None], dict[str, Any]]
) -> dict[str, list[Any]]:
    """A row a variant; a column that no row fills is left out."""
    rows = [
        {"Variant": _name(result), **row_of(result, None if result.is_reference else experiment.reference)}
        for result in sorted_results(experiment)
    ]
    columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else {})}
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _name(result: VariantResult) -> str:
    return f"{result.label} (original)" if result.is_reference else result.label


def _quality_row(result: VariantResult, original: VariantResult | None) -> dict[str, Any]:
    quality = result.quality
    kl = None if quality is None else quality.kl
    perplexity = None if quality is None else quality.perplexity
    ratio = None if quality is None or original is None else quality.perplexity_ratio
    return {
        "Weights, MB": _millions(result.weights_bytes),
        _CHANGE + "weights": change_pct(result.weights_bytes, None if original is None else original.weights_bytes),
        "KL": None if kl is None else kl.value,
        "KL 95 %": interval_text(kl, "{:.2g}".format),
        "KL P95": None if quality is None else quality.kl_p95,
        "Same top": None if quality is None else quality.top1_agreement,
        "Perplexity": None if perplexity is None else perplexity.value,
        "Perplexity 95 %": interval_text(perplexity, "{:.2f}".format),
        _CHANGE + "perplexity": None if ratio is None else change_pct(ratio.value, 1.0),
        _CHANGE + "perplexity 95 %": interval_text(ratio, lambda value: f"{(value - 1) * 100:+.2f}"),
    }


def _speed_row(result: VariantResult, original: VariantResult | None) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    for name, read in _SPEEDS.items():
        found = None if result.speed is None else read(result.speed)
        before = None if original is None or original.speed is None else read(original.speed).value
        cells[name] = None if found is None else found.value
        cells[f"{name} 95 %"] = interval_text(found, "{:.1f}".format)
        cells[_CHANGE + name] = change_pct(cells[name], before)
    return {
        **cells,
        "Load, s": result.load_s,
        _CHANGE + "load": change_pct(result.load_s, None if original is None else original.load_s),
        "Process, MB": _millions(result.process_bytes),
    }


def _ttft_ms(speed: Speed) -> Estimate:
    found = speed.ttft_s
    low, high = (None if bound is None else bound * 1e3 for bound in (found.low, found.high))
    return Estimate(found.value * 1e3, low, high)


_SPEEDS: dict[str, Callable[[Speed], Estimate]] = {
    "1 stream": lambda speed: speed.one_stream_tokens_per_s,
    "8 streams": lambda speed: speed.eight_streams_tokens_per_s,
    "TTFT, ms": _ttft_ms,
}


def _millions(count: int | None) -> float | None:
    return None if count is None else count / 1e6


def show_tables(experiment: Experiment, key: str) -> None:
    """The two tables, and what was in the way."""
    st.markdown("**Size and quality**")
    _show_columns(quality_columns(experiment), f"{key}-quality", "The variants' size and quality")
    st.markdown("**Speed**, output tokens a second")
    _show_columns(speed_columns(experiment), f"{key}-speed", "The variants' speed, load time and memory")
    for result in experiment.results:
        if result.error is not None:
            show_error(f"{result.label} ended early: {result.error}")
    if disturbed := [result.label for result in experiment.results if result.was_disturbed]:
        st.warning(
            f"Requests ran in this process while {plain(', '.join(disturbed))} was measured: compare no speeds with "
            "them, and run the experiment again when it is quiet.",
            icon=":material/warning:",
        )


def _show_columns(columns: dict[str, list[Any]], key: str, alt: str) -> None:
    config = {name: _config(name) for name in columns}
    st.dataframe(columns, hide_index=True, column_config=config, placeholder=DASH, key=key, alt=alt)


def _config(name: str) -> Any:
    column = st.column_config
    if name == "Variant" or "95 %" in name:
        return column.TextColumn(help=_HELP.get(name), pinned=name == "Variant")
    return column.NumberColumn(help=_HELP.get(name), format=_format(name))


def _format(name: str) -> str:
    if name.startswith(_CHANGE):
        return "%+.1f %%"
    formats = {"KL": "%.5f", "KL P95": "%.5f", "Perplexity": "%.3f", "Same top": "percent", "Load, s": "%.2f"}
    return formats.get(name, "%.1f")
