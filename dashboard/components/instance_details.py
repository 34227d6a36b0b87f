"""What was loaded and what it holds: the long form of an instance."""

from __future__ import annotations

from itertools import cycle

import streamlit as st

from dashboard.components.formats import (
    format_bytes,
    format_bytes_rate,
    format_count,
    format_large,
    format_ratio,
    format_seconds,
    format_whole_seconds,
    plain,
)
from dashboard.components.instances import quantization_text, show_instance
from dashboard.components.memory_plan import show_comparison
from engine import InstanceInfo
from engine.inference.stats import PrefixStats, RunnerStats
from engine.models.spec import ModelInfo


def model_facts(model: ModelInfo) -> dict[str, str]:
    """The facts of a loaded model by their names, in the order they are shown."""
    return {
        "Architecture": model.architecture,
        "Parameters": format_large(model.num_parameters),
        "Weights": f"{format_bytes(model.weights_bytes)} as {model.dtype}",
        "Quantization": "none" if model.quantization is None else quantization_text(model.quantization),
        "Device": model.device,
        "Context length": f"{format_count(model.context_length)} tokens",
        "Vocabulary": f"{format_count(model.vocab_size)} tokens",
        "KV cache": f"{format_bytes(model.cache_bytes_per_token)} per token",
        "Load time": _load_time(model),
        "Revision": model.revision,
    }


def _load_time(model: ModelInfo) -> str:
    speed = "" if model.read_bytes_per_s is None else f" at {format_bytes_rate(model.read_bytes_per_s)}"
    return f"{format_seconds(model.loaded_s)}{speed}"


def use_text(info: InstanceInfo, now_s: float) -> str:
    """When it was last used, and whether it may make room for others."""
    pinned = " · stays loaded" if info.is_pinned else ""
    if info.last_used_s is None:
        return f"not used yet{pinned}"
    return f"last used {format_whole_seconds(max(0.0, now_s - info.last_used_s))} ago{pinned}"


def reserved_text(stats: RunnerStats, bytes_per_token: int | None) -> str:
    """How much of the KV cache running requests hold, in tokens and bytes."""
    tokens = f"{stats.cache_tokens_reserved:,} of {stats.cache_tokens_total:,} tokens"
    if bytes_per_token is None:
        return f"KV cache reserved: {tokens}"
    held = format_bytes(stats.cache_tokens_reserved * bytes_per_token)
    return f"KV cache reserved: {tokens} ({held} of {format_bytes(stats.cache_tokens_total * bytes_per_token)})"


def reserved_ratio(stats: RunnerStats) -> float:
    """The reserved share of the KV cache, 0 to 1."""
    if stats.cache_tokens_total <= 0:
        return 0.0
    return min(1.0, stats.cache_tokens_reserved / stats.cache_tokens_total)


def prefixes_text(prefixes: PrefixStats | None, bytes_per_token: int) -> str:
    """What is kept of prompts for others that begin the same, and what that has spared."""
    if prefixes is None:
        return "Beginnings of prompts are not kept (prefix_cache_gib is 0)"
    kept = f"{prefixes.num_kept_tokens:,} tokens ({format_bytes(prefixes.num_kept_tokens * bytes_per_token)})"
    most = format_bytes(prefixes.max_tokens * bytes_per_token)
    text = f"Beginnings of prompts kept: {kept} of at most {most}"
    if prefixes.hit_rate is None:
        return text
    saved = "" if prefixes.saved_s is None else f", {format_seconds(prefixes.saved_s)} of computing saved"
    return f"{text} · {format_ratio(prefixes.hit_rate)} of prompts' tokens found{saved}"


def _prefixes_help(stats: RunnerStats) -> str:
    if stats.prefixes is None:
        return "A prompt that begins as an earlier one did would be spared computing that again."
    return (
        f"Of prompts alone, in blocks of {stats.prefixes.block_tokens} tokens, in what no request has reserved of the "
        "KV cache. prefix_cache_gib bounds them, and prefix_sharing says whose prompts share."
    )


def show_facts(facts: dict[str, str]) -> None:
    """Names and values, three beside each other where there is room."""
    for place, (name, value) in zip(cycle(st.columns(3)), facts.items(), strict=False):
        place.markdown(f":small[:gray[{name}]]  \n{plain(value)}")


def show_instance_details(info: InstanceInfo, now_s: float) -> None:
    """State and load, the cache, the facts of the model, and whether its memory was planned right."""
    show_instance(info, now_s)
    if info.stats is not None:
        bytes_per_token = None if info.model is None else info.model.cache_bytes_per_token
        st.progress(reserved_ratio(info.stats), text=reserved_text(info.stats, bytes_per_token))
        st.caption(
            f"{format_count(info.stats.num_output_tokens)} tokens written in {format_count(info.stats.num_steps)} steps"
            f" · {format_count(info.num_restarts)} restarts · {use_text(info, now_s)}"
        )
        if info.stats.passes is not None:
            st.caption(f"Forward passes: {plain(info.stats.passes)}")
        if info.model is not None:
            st.caption(
                prefixes_text(info.stats.prefixes, info.model.cache_bytes_per_token), help=_prefixes_help(info.stats)
            )
    if info.model is not None:
        show_facts(model_facts(info.model))
        for note in info.model.notes:
            st.caption(f":material/info: {plain(note)}")
    if info.memory is not None:
        show_comparison(info.memory)
