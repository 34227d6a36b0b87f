"""`python -m tests.bench.timed_api FILE`: `python -m engine.api`, and of each request with an id a line in FILE: the
seconds from when the application was handed it until it had sent the last of its answer."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from engine.api import __main__ as api
from engine.api import request_ids

_ask = request_ids.RequestIds.__call__


def main() -> None:
    """Serve until told to stop."""
    file = Path(sys.argv.pop(1))  # the rest is for the API
    with file.open("a", buffering=1) as lines:

        async def ask_timed(app: request_ids.RequestIds, scope: Scope, receive: Receive, send: Send) -> None:
            began_s = sent_s = time.perf_counter()

            async def send_timed(message: Message) -> None:
                nonlocal sent_s
                await send(message)
                sent_s = time.perf_counter()

            await _ask(app, scope, receive, send_timed)
            lines.write(f"{Headers(scope=scope).get(request_ids.HEADER)} {sent_s - began_s}\n")

        request_ids.RequestIds.__call__ = ask_timed
        api.main()


if __name__ == "__main__":
    main()
