"""Cached answers over HTTP: a server process as in production, with a key, quotas, metrics and records, under the load
of wrk, which takes little of the other core (Debian: apt install wrk)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.results import Figure
from tests.bench.servers import Running, find_port, started
from tests.fakes import save_tiny_llama

_SECRET = "bench-secret"
_NUM_CONNECTIONS = 32
_SECONDS = 10
_NUM_ROUNDS = 3
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


_DONE = """
done = function(summary, latency, requests)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format("TOOK %d %f %f %d", summary.requests, summary.duration, latency:percentile(95), failed))
end
"""


@dataclass(frozen=True, slots=True)
class _Took:
    num_requests: int
    elapsed_s: float
    p95_ms: float


def measure(home: Path) -> Iterator[Figure]:
    """Requests a second, P95 and the server's processor time of answers from the cache, after some that are not
    counted; the median round. The processor time holds where the machine is shared."""
    with _server(home / "cached") as server:
        for _ in range(3):
            ask(server.port)
        _send(home, server.port, 2)
        rounds = []
        for _ in range(_NUM_ROUNDS):
            before_s = _processor_s(server.pid)
            took = _send(home, server.port, _SECONDS)
            rounds.append((took.num_requests / took.elapsed_s, took, _processor_s(server.pid) - before_s))
        if ask(server.port) != "HIT":
            raise RuntimeError("the answers were not from the cache")
    rate, took, worked_s = sorted(rounds, key=lambda one: one[0])[_NUM_ROUNDS // 2]
    yield Figure("api.cached.rps", rate, "req/s")
    yield Figure("api.cached.p95_ms", took.p95_ms, "ms")
    yield Figure("api.cached.processor_ms", worked_s / took.num_requests * 1000, "ms")


def _processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def ask(port: int) -> str | None:
    """One request and its answer; whether it was kept, as its header says."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{_PATH}", _BODY.encode(), _HEADERS)
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.read()
        kept: str | None = answer.headers["x-cache"]
        return kept


def _send(home: Path, port: int, seconds: int) -> _Took:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed (Debian: apt install wrk)")
    script = home / "cached.lua"
    headers = "".join(f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}\n" for name, value in _HEADERS.items())
    script.write_text(f'wrk.method = "POST"\nwrk.body = {json.dumps(_BODY)}\n{headers}{_DONE}')
    load = ["-t1", f"-c{_NUM_CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    command = [wrk, *load, f"http://127.0.0.1:{port}{_PATH}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    count, elapsed_us, p95_us, failed = done.stdout.partition("TOOK ")[2].split()
    if int(failed):
        raise RuntimeError(f"{failed} of {count} requests failed")
    return _Took(int(count), float(elapsed_us) / 1e6, float(p95_us) / 1e3)


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
