"""Liveness, readiness and Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from engine.console import Console
from engine.instance import InstanceInfo, InstanceState


async def healthz(_: Request) -> Response:
    """200 while the process answers at all."""
    return JSONResponse({"status": "ok"})


async def readyz(http: Request) -> Response:
    """200 when a model is ready, else 503 with every instance's state and reason."""
    console: Console | None = getattr(http.app.state, "console", None)
    instances = () if console is None else console.engine.instances()
    is_ready = any(instance.state is InstanceState.READY for instance in instances)
    body = {
        "ready": is_ready,
        "instances": {item.name: {"state": item.state.value, "reason": item.reason} for item in instances},
    }
    return JSONResponse(body, 200 if is_ready else 503)


async def metrics(http: Request) -> Response:
    """The engine's readings in Prometheus' text format."""
    registry = CollectorRegistry()
    console: Console | None = getattr(http.app.state, "console", None)
    if console is not None:
        registry.register(_InstanceCollector(console.engine.instances()))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _InstanceCollector(Collector):
    """Gauges of each instance, read when scraped."""

    def __init__(self, instances: Iterable[InstanceInfo]) -> None:
        self._instances = tuple(instances)

    def collect(self) -> Iterable[Metric]:
        """One family per reading, labelled by model."""
        ready = GaugeMetricFamily("console_instance_ready", "1 when the instance answers requests", labels=["model"])
        running = GaugeMetricFamily("console_requests_running", "Requests in the batch", labels=["model"])
        waiting = GaugeMetricFamily("console_requests_waiting", "Requests in the queue", labels=["model"])
        cache = GaugeMetricFamily("console_kv_cache_reserved_ratio", "Share of KV cache reserved", labels=["model"])
        restarts = GaugeMetricFamily("console_worker_restarts", "Worker restarts since loading", labels=["model"])
        for item in self._instances:
            ready.add_metric([item.name], float(item.state is InstanceState.READY))
            restarts.add_metric([item.name], item.num_restarts)
            if item.stats is not None:
                running.add_metric([item.name], item.stats.num_running)
                waiting.add_metric([item.name], item.stats.num_waiting)
                cache.add_metric([item.name], item.stats.cache_tokens_reserved / item.stats.cache_tokens_total)
        return (ready, running, waiting, cache, restarts)
