"""The API under chat clients against `transformers serve --continuous-batching`: the same weights, dtype, prompts and
load, the servers in turn, each alone on the machine while it is measured."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from engine.latency import RecordStore, percentile
from engine.latency.store import FILE_NAME
from tests.bench.chat_load import ChatLoad, ChatTook, run_chats
from tests.bench.results import Figure, compare
from tests.bench.servers import Running, find_port, started

_PEER = "transformers serve"
_NUM_TOKENS = 64
_NUM_REQUESTS = {1: 4, 8: 2, 32: 1}  # of each client
_NUM_PAIRS = 3
_STARVED = 64
_TIMES = "api-times.txt"


@dataclass(frozen=True, slots=True)
class _Round:
    """What one start of a server gave, by number of clients."""

    took: dict[int, ChatTook]

    def rate(self, num_clients: int) -> float:
        return self.took[num_clients].tokens_per_s

    def ttft_p95_s(self, num_clients: int) -> float:
        return _p95([answer.ttft_s for answer in self.took[num_clients].answers])


def measure(home: Path) -> Iterator[Figure]:
    """Tokens a second and P95 of the time to the first token, both ratios; then what the API adds to the engine, and
    how far apart the first tokens of 64 clients are."""
    folder = _unpack(home)
    pairs = [(_measure_ours(home, folder, str(pair)), _measure_theirs(folder, str(pair))) for pair in range(_NUM_PAIRS)]
    for num_clients in _NUM_REQUESTS:
        rates = [(ours.rate(num_clients), theirs.rate(num_clients)) for ours, theirs in pairs]
        firsts = [(ours.ttft_p95_s(num_clients), theirs.ttft_p95_s(num_clients)) for ours, theirs in pairs]
        yield _compare(f"api.clients{num_clients}.tok_s", "tok/s", rates, more=True)
        yield _compare(f"api.clients{num_clients}.ttft_p95_s", "s", firsts, more=False)
    overheads = _overheads_ms(home, [ours for ours, _ in pairs])
    for num_clients, values in overheads.items():
        yield Figure(f"api.overhead.clients{num_clients}.p95_ms", _p95(values), "ms")
    with _ours(home, folder) as server:
        firsts_s = [answer.ttft_s for answer in _send(server.port, "sample", _STARVED, 1, "many").answers]
    yield Figure(f"api.clients{_STARVED}.ttft_max_s", max(firsts_s), "s")
    yield Figure(f"api.clients{_STARVED}.ttft_max_over_min", max(firsts_s) / min(firsts_s), "")


def _unpack(home: Path) -> Path:
    """The folder of the sample's unpacked weights, which both servers read."""
    command = [sys.executable, "-m", "engine.models", "pull", "sample", "--home", str(home)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder,) = (path for path in (home / "weights").iterdir() if (path / "config.json").exists())
    return folder


def _measure_ours(home: Path, folder: Path, name: str) -> _Round:
    with _ours(home, folder) as server:
        return _measure(server.port, "sample", f"ours{name}")


def _measure_theirs(folder: Path, name: str) -> _Round:
    with _theirs(folder) as server:
        return _measure(server.port, str(folder), f"theirs{name}")


def _measure(port: int, model: str, name: str) -> _Round:
    _send(port, model, 2, 1, f"{name}-warm")
    return _Round({clients: _send(port, model, clients, each, name) for clients, each in _NUM_REQUESTS.items()})


def _send(port: int, model: str, num_clients: int, num_requests: int, name: str) -> ChatTook:
    return run_chats(ChatLoad(port, model, num_clients, num_requests, _NUM_TOKENS, f"{name}-{num_clients}"))


def _ours(home: Path, folder: Path) -> AbstractContextManager[Running]:
    port = find_port()
    settings = {
        "CONSOLE_HOME": str(home),
        "CONSOLE_PORT": str(port),
        "CONSOLE_MODEL": str(folder),
        "CONSOLE_MODEL_NAME": "sample",
        "CONSOLE_DEVICE": "cpu",
        "CONSOLE_LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "tests.bench.timed_api", str(home / _TIMES)]
    return started(command, port, "/readyz", settings)


def _theirs(folder: Path) -> AbstractContextManager[Running]:
    port = find_port()
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--continuous-batching"]
    command += ["--device", "cpu", "--dtype", "float32", "--port", str(port), "--host", "127.0.0.1"]
    return started(command, port, "/health", {"HF_HUB_OFFLINE": "1"})


def _overheads_ms(home: Path, rounds: list[_Round]) -> dict[int, list[float]]:
    """What the API took of each answer beyond the engine, by number of clients: from the request's head to the last of
    its answer sent, less the engine's own time."""
    lines = (line.split() for line in (home / _TIMES).read_text().splitlines())
    api_s = {id: float(seconds) for id, seconds in lines}
    store = RecordStore.open(home / FILE_NAME)
    try:
        engine_s = {record.request_id: record.finished_s for record in store.recent(limit=10_000)}
    finally:
        store.close()
    return {
        num_clients: [
            (api_s[answer.id] - engine_s[answer.id]) * 1000
            for each in rounds
            for answer in each.took[num_clients].answers
        ]
        for num_clients in _NUM_REQUESTS
    }


def _compare(name: str, unit: str, pairs: list[tuple[float, float]], *, more: bool) -> Figure:
    ours, theirs = zip(*pairs, strict=True)
    return compare(name, unit, ours, _PEER, theirs, more=more)


def _p95(values: list[float]) -> float:
    found = percentile(values, 0.95)
    assert found is not None
    return found
