"""A memory plan as lines for a terminal and as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from engine.models.plan import Alternative, MemoryPlan, Verdict, gigabytes
from engine.models.weight_lines import Line
from engine.weights.preview import DownloadSize


def headline(plan: MemoryPlan) -> str:
    """The verdict in one sentence with its numbers."""
    device = "the CPU" if plan.budget.device == "cpu" else plan.budget.device
    sentence = f"{plan.name} {plan.verdict} on {device}"
    chosen = next((item for item in plan.alternatives if item.fits), None)
    if chosen is not None:
        sentence += f" ({chosen.change})"
    needed = plan.needed_bytes if chosen is None else chosen.needed_bytes
    return f"{sentence}: {gigabytes(needed)} needed, {gigabytes(plan.budget.free_bytes)} free"


def asked_text(plan: MemoryPlan) -> str:
    """What the plan is for: `AutoGLM as bfloat16, 2 requests of 8,192 tokens`."""
    quantization = plan.placement.quantization
    weights = plan.placement.dtype + (f" with {quantization.scheme}" if quantization is not None else "")
    demand = plan.demand
    requests = (
        f"{demand.concurrency} request{'' if demand.concurrency == 1 else 's'} of {demand.context_tokens:,} tokens"
    )
    return f"{plan.architecture}, {plan.num_parameters:,} parameters as {weights}, {requests}"


def to_text(plan: MemoryPlan) -> str:
    """Verdict, reasons, every line with its arithmetic, and the alternatives."""
    return "\n".join(_text_lines(plan))


def _text_lines(plan: MemoryPlan) -> Iterator[str]:
    yield headline(plan)
    yield f"As asked: {asked_text(plan)}"
    yield from (f"  - {reason}" for reason in plan.reasons)
    yield ""
    yield f"Serving: {gigabytes(plan.steady_bytes)}"
    yield from map(_line, plan.lines)
    yield f"Loading, at its peak: {gigabytes(plan.loading_bytes)}"
    yield from map(_line, plan.loading)
    yield f"Free: {gigabytes(plan.budget.free_bytes)} ({plan.budget.where})"
    yield f"Kept for KV caches after loading: {gigabytes(plan.cache_limit_bytes)}"
    yield from (f"Note: {note}" for note in plan.notes)
    if plan.alternatives:
        yield "Otherwise:"
        yield from map(_alternative, plan.alternatives)


def _line(line: Line) -> str:
    return f"  {line.num_bytes / 1e9:9.3f} GB  {line.what}: {line.how}"


def _alternative(item: Alternative) -> str:
    answer = "fits" if item.fits else f"does not fit: {'; '.join(item.reasons)}"
    return f"  {item.change} ({gigabytes(item.needed_bytes)}): {answer}"


def to_dict(plan: MemoryPlan, download: DownloadSize | None = None) -> dict[str, Any]:
    """The plan in plain data, with its sums; and what is to be downloaded first, null where nothing is."""
    return {
        **asdict(plan),
        "fits": plan.verdict is Verdict.FITS,
        "headline": headline(plan),
        "weights_bytes": plan.weights_bytes,
        "cache_bytes": plan.cache_bytes,
        "steady_bytes": plan.steady_bytes,
        "loading_bytes": plan.loading_bytes,
        "needed_bytes": plan.needed_bytes,
        "download": None if download is None else {**asdict(download), "folder": str(download.folder)},
    }


def to_json(plan: MemoryPlan) -> str:
    """`to_dict` as indented JSON."""
    return json.dumps(to_dict(plan), indent=2, ensure_ascii=False)
