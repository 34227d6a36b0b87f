"""Cached answers over HTTP: a server process as in production, with a key, quotas, metrics and records, under the load
of a second process."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psutil

from engine.latency import percentile
from tests.bench.load import Load, Took, run_load
from tests.bench.results import Figure
from tests.bench.servers import Running, find_port, started
from tests.fakes import save_tiny_llama

_SECRET = "bench-secret"
_NUM_CONNECTIONS = 32
_NUM_REQUESTS = 12_000
_MOST_S = 30.0
_PATH = "/v1/chat/completions"
_HEADERS = {"authorization": f"Bearer {_SECRET}", "content-type": "application/json"}
_BODY = json.dumps(
    {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "max_tokens": 64,
    }
)


def measure(home: Path) -> Iterator[Figure]:
    """Requests a second, P95 and the server's processor time of answers from the cache, after some that are not
    counted. The processor time holds where the machine is shared."""
    with _server(home / "cached") as server:
        for _ in range(3):
            ask(server.port)
        _send(server.port, 1_000)
        before_s = _processor_s(server.pid)
        took = _send(server.port, _NUM_REQUESTS)
        worked_s = _processor_s(server.pid) - before_s
    p95_ms = percentile(took.latencies_ms, 0.95)
    assert p95_ms is not None
    yield Figure("api.cached.rps", len(took.latencies_ms) / took.elapsed_s, "req/s")
    yield Figure("api.cached.p95_ms", p95_ms, "ms")
    yield Figure("api.cached.processor_ms", worked_s / len(took.latencies_ms) * 1000, "ms")


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ask(port: int) -> None:
    """One request and its answer."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{_PATH}", _BODY.encode(), _HEADERS)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()


def _send(port: int, num_requests: int) -> Took:
    took = run_load(Load(port, _PATH, _HEADERS, _BODY, _NUM_CONNECTIONS, num_requests, _MOST_S, "x-cache: hit"))
    if took.num_failed or not took.latencies_ms:
        raise RuntimeError(f"{took.num_failed} of {len(took.latencies_ms)} answers were not from the cache")
    return took


def _server(home: Path) -> AbstractContextManager[Running]:
    """`python -m engine.api` with the tiny model ready."""
    home.mkdir(parents=True)
    port = find_port()
    settings = {
        "CONSOLE_HOME": str(home),
        "CONSOLE_PORT": str(port),
        "CONSOLE_MODEL": str(save_tiny_llama(home / "tiny")),
        "CONSOLE_MODEL_NAME": "tiny",
        "CONSOLE_DEVICE": "cpu",
        "CONSOLE_KV_CACHE_GIB": "0.1",
        "CONSOLE_API_KEYS": _SECRET,
        "CONSOLE_RESPONSE_CACHE_MIB": "64",
        "CONSOLE_LOG_LEVEL": "warning",
    }
    return started([sys.executable, "-m", "engine.api"], port, "/readyz", settings)
