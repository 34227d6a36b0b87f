"""A server process killed amid a batch, and started again on the same home."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes import wait_until

_ROOT = Path(__file__).parents[3]
_CHAT = "/v1/chat/completions"
_NUM_ROWS = 200


@contextmanager
def _server(home: Path, model: Path, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], openai.OpenAI]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    options = ["--model", str(model), "--model-name", "tiny", "--home", str(home), "--port", str(port)]
    command = [sys.executable, "-m", "engine.api", *options, "--device", "cpu"]
    with (
        log.open("ab") as stream,
        subprocess.Popen(command, cwd=_ROOT, stdout=stream, stderr=stream) as process,
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0, timeout=30) as client,
    ):
        try:
            wait_until(lambda: process.poll() is not None or _is_ready(client), 240)
            assert process.poll() is None, log.read_text()
            yield process, client
        finally:
            process.kill()


def _is_ready(client: openai.OpenAI) -> bool:
    try:
        return [model.id for model in client.models.list()] == ["tiny"]
    except openai.APIError:
        return False


def _num_done(client: openai.OpenAI, batch_id: str) -> int:
    counts = client.batches.retrieve(batch_id).request_counts
    return 0 if counts is None else counts.completed + counts.failed


def _row(index: int) -> dict[str, Any]:
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": f"Row {index}"}],
        "max_tokens": 40,
        "seed": index,
        "logit_bias": {"257": -100},
        **({"temperature": 9} if index % 10 == 0 else {}),  # the endpoint refuses it
    }
    return {"custom_id": f"row-{index}", "method": "POST", "url": _CHAT, "body": body}


@pytest.mark.slow
@pytest.mark.timeout(600)  # two starts of a server; much of a minute each on a loaded machine
def test_every_row_is_there_once_though_the_server_was_killed(tmp_path: Path, tiny_folder: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    content = "".join(json.dumps(_row(index)) + "\n" for index in range(_NUM_ROWS)).encode()
    with _server(home, tiny_folder, log) as (process, client):
        file = client.files.create(file=("rows.jsonl", content), purpose="batch")
        batch_id = client.batches.create(input_file_id=file.id, endpoint=_CHAT, completion_window="24h").id
        wait_until(lambda: _num_done(client, batch_id) >= 20, 60)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    num_written = sum(file.read_bytes().count(b"\n") for file in (home / "batches" / "files").iterdir()) - _NUM_ROWS
    assert 20 <= num_written < _NUM_ROWS, "it was killed too late"
    with _server(home, tiny_folder, log) as (_, client):
        wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", 120)
        batch = client.batches.retrieve(batch_id)
        lines = [
            [json.loads(line) for line in client.files.content(str(file_id)).text.splitlines()]
            for file_id in (batch.output_file_id, batch.error_file_id)
        ]
    answered, refused = ([line["custom_id"] for line in some] for some in lines)
    assert sorted(answered) == sorted(f"row-{index}" for index in range(_NUM_ROWS) if index % 10)
    assert sorted(refused) == sorted(f"row-{index}" for index in range(0, _NUM_ROWS, 10))
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (len(answered), len(refused))
