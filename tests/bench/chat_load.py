"""A load of chat clients: each streams its answers, one after the other, over the OpenAI protocol.

`python -m tests.bench.chat_load` reads a `ChatLoad` as JSON from standard input and writes a `ChatTook`. An answer that
is not 200, breaks off, or has another number of tokens than asked for is an error: the comparison would not be fair.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import httpx

_MOST_S = 400.0


@dataclass(frozen=True, slots=True)
class ChatLoad:
    """`num_clients` at once, each with `num_requests`; `prefix` begins the ids and the prompts, so that no two loads
    share a prompt."""

    port: int
    model: str
    num_clients: int
    num_requests: int
    num_tokens: int
    prefix: str


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer's id, as its request was sent with, and latencies as the client saw them; `gaps_s` are those between
    two pieces of text."""

    id: str
    ttft_s: float
    e2e_s: float
    num_tokens: int
    gaps_s: list[float]


@dataclass(frozen=True, slots=True)
class ChatTook:
    """All answers, and the time from the first request to the last end."""

    answers: list[Answer]
    elapsed_s: float

    @property
    def tokens_per_s(self) -> float:
        return sum(answer.num_tokens for answer in self.answers) / self.elapsed_s


def run_chats(load: ChatLoad) -> ChatTook:
    """Send it from another process.

    Raises:
        RuntimeError: an answer failed; the message is the process's own.
    """
    command = [sys.executable, "-m", "tests.bench.chat_load"]
    done = subprocess.run(command, input=json.dumps(asdict(load)), capture_output=True, text=True, timeout=_MOST_S + 60)
    if done.returncode:
        raise RuntimeError(f"the load of {load.num_clients} clients failed: {done.stderr[-2000:]}")
    took = json.loads(done.stdout)
    return ChatTook([Answer(**answer) for answer in took["answers"]], took["elapsed_s"])


async def _send_all(load: ChatLoad) -> ChatTook:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{load.port}", timeout=_MOST_S, limits=limits) as client:
        began_s = time.perf_counter()
        chats = [_chat(client, load, number) for number in range(load.num_clients)]
        answers = await asyncio.wait_for(asyncio.gather(*chats), _MOST_S)
        return ChatTook([answer for each in answers for answer in each], time.perf_counter() - began_s)


async def _chat(client: httpx.AsyncClient, load: ChatLoad, number: int) -> list[Answer]:
    return [await _ask(client, load, f"{load.prefix}-{number}-{turn}") for turn in range(load.num_requests)]


async def _ask(client: httpx.AsyncClient, load: ChatLoad, id: str) -> Answer:
    question = f"{id}: write a long story about a dragon who lived in the mountains and liked to eat bread."
    body = {
        "model": load.model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": load.num_tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began_s = time.perf_counter()
    times_s: list[float] = []
    num_tokens = 0
    async for chunk in _events(client, body, id):
        if any(choice["delta"].get("content") for choice in chunk["choices"]):
            times_s.append(time.perf_counter())
        num_tokens = (chunk.get("usage") or {}).get("completion_tokens", num_tokens)
    if not times_s or num_tokens != load.num_tokens:
        raise RuntimeError(f"{num_tokens} tokens came instead of {load.num_tokens}")
    gaps_s = [later - earlier for earlier, later in pairwise(times_s)]
    return Answer(id, times_s[0] - began_s, time.perf_counter() - began_s, num_tokens, gaps_s)


async def _events(client: httpx.AsyncClient, body: dict[str, Any], id: str) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("POST", "/v1/chat/completions", json=body, headers={"x-request-id": id}) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
            if data and data != "[DONE]":
                yield json.loads(data)


def main() -> None:
    """One load."""
    load = ChatLoad(**json.loads(sys.stdin.read()))
    print(json.dumps(asdict(asyncio.run(_send_all(load)))))


if __name__ == "__main__":
    main()
