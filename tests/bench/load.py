"""A load generator: keep-alive connections that send one HTTP request after the other, as a process of its own.

`python -m tests.bench.load` reads a `Load` as JSON from standard input and writes a `Took`. It counts an answer that is
not 200, or lacks `expected`, as failed.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and when to stop: after that many requests or seconds, whichever is first."""

    port: int
    path: str
    headers: dict[str, str]
    body: str
    num_connections: int
    num_requests: int
    most_s: float
    expected: str = ""


@dataclass(frozen=True, slots=True)
class Took:
    """Latencies are in milliseconds, in the order of the answers' ends."""

    latencies_ms: list[float]
    elapsed_s: float
    num_failed: int


def run_load(load: Load) -> Took:
    """Send it from another process."""
    command = [sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(
        command, input=json.dumps(asdict(load)), capture_output=True, text=True, timeout=load.most_s + 60, check=True
    )
    return Took(**json.loads(done.stdout))


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as an answer has ended."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._received = b""
        self._sent_s = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(_HEAD_END)
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self._received = b""
        self._run.note(time.perf_counter() - self._sent_s, head)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        if not self._run.may_send():
            self._transport.close()
            return
        self._sent_s = time.perf_counter()
        self._transport.write(self._run.request)


class _Run:
    def __init__(self, load: Load) -> None:
        body = load.body.encode()
        lines = [f"POST {load.path} HTTP/1.1", f"host: 127.0.0.1:{load.port}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in load.headers.items()]
        self.request = "\r\n".join(lines).encode() + _HEAD_END + body
        self._expected = load.expected.lower().encode()
        self._num_left = load.num_requests
        self._until_s = time.perf_counter() + load.most_s
        self.took = Took([], 0.0, 0)
        self.num_failed = 0

    def may_send(self) -> bool:
        self._num_left -= 1
        return self._num_left >= 0 and time.perf_counter() < self._until_s

    def note(self, latency_s: float, head: bytes) -> None:
        self.took.latencies_ms.append(latency_s * 1000)
        self.num_failed += not head.startswith(b"HTTP/1.1 200") or self._expected not in head.lower()


async def _send_all(load: Load) -> Took:
    run = _Run(load)
    loop = asyncio.get_running_loop()
    began_s = time.perf_counter()
    pairs = [
        await loop.create_connection(lambda: _Connection(run), "127.0.0.1", load.port)
        for _ in range(load.num_connections)
    ]
    await asyncio.wait_for(asyncio.gather(*(protocol.ended for _, protocol in pairs)), load.most_s + 30)
    return Took(run.took.latencies_ms, time.perf_counter() - began_s, run.num_failed)


def main() -> None:
    """One load."""
    load = Load(**json.loads(sys.stdin.read()))
    print(json.dumps(asdict(asyncio.run(_send_all(load)))))


if __name__ == "__main__":
    main()
