"""`/metrics`: the engine's readings for Prometheus, under vLLM's names where it has one.

Everything is read when it is scraped, out of what the console keeps anyway; no registry outlives a scrape.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from starlette.requests import Request
from starlette.responses import Response

from engine.console import Console
from engine.gateway import CacheFigures
from engine.inference.request import FinishReason
from engine.instance import InstanceInfo, InstanceState, Role
from engine.latency.histogram import HistogramReading
from engine.latency.totals import Measure, ModelTotals

_LABELS = ["model_name"]
_HISTOGRAMS = {
    Measure.TTFT: ("vllm:time_to_first_token_seconds", "Time to first token"),
    Measure.E2E: ("vllm:e2e_request_latency_seconds", "Time from receipt to end"),
    Measure.QUEUE: ("vllm:request_queue_time_seconds", "Time in the queue"),
    Measure.PREFILL: ("vllm:request_prefill_time_seconds", "Time from start to first token"),
    Measure.DECODE: ("vllm:request_decode_time_seconds", "Time from first to last token"),
    Measure.INFERENCE: ("vllm:request_inference_time_seconds", "Time from start to last token"),
    Measure.TPOT: ("vllm:request_time_per_output_token_seconds", "Mean time between tokens of a request"),
    Measure.PROMPT_TOKENS: ("vllm:request_prompt_tokens", "Prompt tokens of a request"),
    Measure.OUTPUT_TOKENS: ("vllm:request_generation_tokens", "Output tokens of a request"),
}
# vLLM's words for how a request ended; whatever else went wrong is an error.
_FINISHED_REASONS: Mapping[str, str] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.CANCELLED: "abort",
}


async def metrics(http: Request) -> Response:
    """The engine's readings in Prometheus' text format."""
    registry = CollectorRegistry()
    console: Console | None = getattr(http.app.state, "console", None)
    if console is not None:
        registry.register(InstanceCollector(console.engine.instances()))
        registry.register(RequestCollector(console.records.totals.read(), console.engine.token_gaps()))
        registry.register(CacheCollector(console.gateway.cache.figures()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class InstanceCollector(Collector):
    """Gauges of each model; of one that is being swapped, all versions together where that makes sense."""

    def __init__(self, instances: Iterable[InstanceInfo]) -> None:
        self._instances = tuple(instances)

    def collect(self) -> Iterable[Metric]:
        """One family a reading."""
        running = GaugeMetricFamily("vllm:num_requests_running", "Requests in the batch", labels=_LABELS)
        waiting = GaugeMetricFamily("vllm:num_requests_waiting", "Requests in the queue", labels=_LABELS)
        cache = GaugeMetricFamily("vllm:kv_cache_usage_perc", "Share of KV cache reserved, 0 to 1", labels=_LABELS)
        ready = GaugeMetricFamily("console_instance_ready", "1 when the instance answers requests", labels=_LABELS)
        restarts = GaugeMetricFamily("console_worker_restarts", "Worker restarts since loading", labels=_LABELS)
        kept = GaugeMetricFamily(
            "console_prefix_cache_tokens", "Tokens of prompts kept for others that begin the same", labels=_LABELS
        )
        asked = CounterMetricFamily("vllm:prefix_cache_queries", "Tokens of prompts that started", labels=_LABELS)
        found = CounterMetricFamily("vllm:prefix_cache_hits", "Of these, those that were kept", labels=_LABELS)
        held_up = CounterMetricFamily(
            "console_steps_held_up_requests",
            "Requests for which steps wait until their last token is known, by reason",
            labels=[*_LABELS, "reason"],
        )
        num_running, num_waiting = self._count_requests()
        for item in self._instances:
            if item.role is not Role.SERVING:
                continue
            ready.add_metric([item.name], float(item.state is InstanceState.READY))
            restarts.add_metric([item.name], item.num_restarts)
            if item.stats is not None:
                running.add_metric([item.name], num_running[item.name])
                waiting.add_metric([item.name], num_waiting[item.name])
                cache.add_metric([item.name], item.stats.cache_tokens_reserved / item.stats.cache_tokens_total)
                for reason, number in item.stats.num_held_up.items():
                    held_up.add_metric([item.name, reason], number)
                if item.stats.prefixes is not None:
                    kept.add_metric([item.name], item.stats.prefixes.num_kept_tokens)
                    asked.add_metric([item.name], item.stats.prefixes.num_asked_tokens)
                    found.add_metric([item.name], item.stats.prefixes.num_found_tokens)
        return (running, waiting, cache, kept, asked, found, ready, restarts, held_up)

    def _count_requests(self) -> tuple[Counter[str], Counter[str]]:
        running: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        for item in self._instances:
            if item.stats is not None:
                running[item.name] += item.stats.num_running
                waiting[item.name] += item.stats.num_waiting
        return running, waiting


class RequestCollector(Collector):
    """Counters and histograms of requests that ended, and of the gaps between tokens of all."""

    def __init__(self, totals: Mapping[str, ModelTotals], token_gaps: Mapping[str, HistogramReading]) -> None:
        self._totals = totals
        self._token_gaps = token_gaps

    def collect(self) -> Iterable[Metric]:
        """One family a measure, and those of tokens, ends and rejections."""
        for measure, (name, text) in _HISTOGRAMS.items():
            readings = {model: totals.measures[measure] for model, totals in self._served().items()}
            yield _histogram(name, text, readings)
        yield _histogram("vllm:inter_token_latency_seconds", "Time between two tokens of a request", self._token_gaps)
        yield from self._counters()

    def _served(self) -> dict[str, ModelTotals]:
        return {model: totals for model, totals in self._totals.items() if totals.num_by_finish}

    def _counters(self) -> Iterable[Metric]:
        prompt = CounterMetricFamily("vllm:prompt_tokens", "Prompt tokens of ended requests", labels=_LABELS)
        output = CounterMetricFamily("vllm:generation_tokens", "Output tokens of ended requests", labels=_LABELS)
        ended = CounterMetricFamily(
            "vllm:request_success", "Requests that ended, by reason", labels=[*_LABELS, "finished_reason"]
        )
        rejected = CounterMetricFamily(
            "console_rejections", "Requests that never started, by reason", labels=[*_LABELS, "reason"]
        )
        for model, totals in self._served().items():
            prompt.add_metric([model], totals.num_prompt_tokens)
            output.add_metric([model], totals.num_output_tokens)
            for reason, number in _by_finished_reason(totals).items():
                ended.add_metric([model, reason], number)
        for model, totals in self._totals.items():
            for reason, number in totals.num_rejected.items():
                rejected.add_metric([model, reason], number)
        return (prompt, output, ended, rejected)


class CacheCollector(Collector):
    """What the response cache did and holds."""

    def __init__(self, figures: CacheFigures) -> None:
        self._figures = figures

    def collect(self) -> Iterable[Metric]:
        """Counters of what was looked up and saved, gauges of what is kept."""
        figures, name = self._figures, "console_response_cache"
        asked = CounterMetricFamily(f"{name}_requests", "Requests looked up, by result", labels=["result"])
        for result, number in (
            ("hit", figures.num_hits),
            ("shared", figures.num_shared),
            ("miss", figures.num_misses),
        ):
            asked.add_metric([result], number)
        saved = CounterMetricFamily(
            f"{name}_saved_seconds", "Engine time of answers that were given again", value=figures.saved_s
        )
        entries = GaugeMetricFamily(f"{name}_entries", "Answers kept", value=figures.num_entries)
        size = GaugeMetricFamily(f"{name}_bytes", "Memory that they take", value=figures.size_bytes)
        return (asked, saved, entries, size)


def _by_finished_reason(totals: ModelTotals) -> dict[str, int]:
    numbers: dict[str, int] = defaultdict(int)
    for reason, number in totals.num_by_finish.items():
        numbers[_FINISHED_REASONS.get(reason, "error")] += number
    return numbers


def _histogram(name: str, text: str, readings: Mapping[str, HistogramReading]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=_LABELS)
    for model, reading in readings.items():
        bounds = [*map(floatToGoString, reading.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(reading.counts), strict=True))
        family.add_metric([model], buckets, reading.total)
    return family
