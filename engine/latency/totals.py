"""What requests came to since the console opened, by model: counters that only grow, for whoever scrapes them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.errors import InstanceNotFoundError
from engine.latency.histogram import (
    FIRST_TOKEN_BOUNDS_S,
    GAP_BOUNDS_S,
    REQUEST_BOUNDS_S,
    TOKEN_BOUNDS,
    Histogram,
    HistogramReading,
)
from engine.latency.record import RequestRecord, Status

# Names that refusals may add: what is asked for may be refused before anybody knows whether there is such a model.
_MOST_REFUSED_NAMES = 100


class Measure(StrEnum):
    """What is counted of each request that was let in; times are in seconds."""

    TTFT = "ttft"
    E2E = "e2e"
    QUEUE = "queue"
    PREFILL = "prefill"
    DECODE = "decode"
    INFERENCE = "inference"
    TPOT = "tpot"
    PROMPT_TOKENS = "prompt_tokens"
    OUTPUT_TOKENS = "output_tokens"


_MEASURES: Mapping[Measure, tuple[tuple[float, ...], Callable[[RequestRecord], float | None]]] = {
    Measure.TTFT: (FIRST_TOKEN_BOUNDS_S, lambda record: record.ttft_s),
    Measure.E2E: (REQUEST_BOUNDS_S, lambda record: record.e2e_s),
    Measure.QUEUE: (REQUEST_BOUNDS_S, lambda record: record.queue_s),
    Measure.PREFILL: (REQUEST_BOUNDS_S, lambda record: record.prefill_s),
    Measure.DECODE: (REQUEST_BOUNDS_S, lambda record: record.decode_s),
    Measure.INFERENCE: (REQUEST_BOUNDS_S, lambda record: record.inference_s),
    Measure.TPOT: (GAP_BOUNDS_S, lambda record: record.tpot_s),
    Measure.PROMPT_TOKENS: (TOKEN_BOUNDS, lambda record: record.num_prompt_tokens),
    Measure.OUTPUT_TOKENS: (TOKEN_BOUNDS, lambda record: record.num_output_tokens),
}


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """A reading of one model's. `num_by_finish` and `num_rejected` are by the record's `finish_reason`."""

    measures: Mapping[Measure, HistogramReading]
    num_prompt_tokens: int
    num_output_tokens: int
    num_by_finish: Mapping[str, int]
    num_rejected: Mapping[str, int]


@dataclass(slots=True)
class _Model:
    histograms: dict[Measure, Histogram] = field(
        default_factory=lambda: {measure: Histogram(bounds) for measure, (bounds, _) in _MEASURES.items()}
    )
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    num_by_finish: Counter[str] = field(default_factory=Counter)
    num_rejected: Counter[str] = field(default_factory=Counter)


class Totals:
    """Any thread may call. A request for a model that does not exist is counted under the empty name, and so is a
    refusal for one that served nothing yet where there are many names: whoever asks for ever new names must not make
    ever new counters."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._lock = threading.Lock()

    def add(self, record: RequestRecord) -> None:
        """Count one request. Takes microseconds."""
        is_refused = record.status is Status.REJECTED
        with self._lock:
            is_new = record.model not in self._models
            is_beyond = is_refused and is_new and len(self._models) >= _MOST_REFUSED_NAMES
            is_unknown = is_beyond or record.finish_reason == InstanceNotFoundError.code
            name = "" if is_unknown else record.model
            model = self._models.get(name)
            if model is None:
                model = self._models[name] = _Model()
            if is_refused:
                model.num_rejected[record.finish_reason] += 1
            else:
                _count(model, record)

    def read(self) -> dict[str, ModelTotals]:
        """A reading by model."""
        with self._lock:
            return {name: _read(model) for name, model in self._models.items()}


def _count(model: _Model, record: RequestRecord) -> None:
    model.num_by_finish[record.finish_reason] += 1
    model.num_prompt_tokens += record.num_prompt_tokens
    model.num_output_tokens += record.num_output_tokens
    for measure, (_, value_of) in _MEASURES.items():
        value = value_of(record)
        if value is not None:
            model.histograms[measure].observe(value)


def _read(model: _Model) -> ModelTotals:
    return ModelTotals(
        {measure: histogram.read() for measure, histogram in model.histograms.items()},
        model.num_prompt_tokens,
        model.num_output_tokens,
        dict(model.num_by_finish),
        dict(model.num_rejected),
    )
