"""`python -m tests.bench.open_tabs PORT PAGE ...`: sessions of the console, one a page, as browsers hold them, without
what a browser does to show them: Streamlit's protocol over a WebSocket, with every fragment run again when it is due.

Writes `open` once all pages have run, and, when standard input ends, how many runs of fragments were answered.
"""

from __future__ import annotations

import asyncio
import sys

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg


class Tab:
    """One session. `is_open` is set once its page has run."""

    def __init__(self, port: int, page: str) -> None:
        self.is_open = asyncio.Event()
        self.num_runs = 0
        self._url = f"ws://127.0.0.1:{port}/_stcore/stream"
        self._page = page
        self._page_hash = ""
        self._timers: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        subprotocols = [websockets.Subprotocol("streamlit")]
        async with websockets.connect(self._url, subprotocols=subprotocols, max_size=None) as socket:
            await socket.send(BackMsg(rerun_script=ClientState(page_name=self._page)).SerializeToString())
            async for data in socket:
                assert isinstance(data, bytes)
                self._take(ForwardMsg.FromString(data), socket)

    def _take(self, message: ForwardMsg, socket: websockets.ClientConnection) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._page_hash = message.new_session.page_script_hash or self._page_hash
        elif kind == "auto_rerun":
            rerun = message.auto_rerun
            if rerun.fragment_id not in self._timers:
                again = self._run_again(socket, rerun.fragment_id, rerun.interval)
                self._timers[rerun.fragment_id] = asyncio.create_task(again)
        elif kind == "script_finished":
            self.num_runs += 1
            self.is_open.set()

    async def _run_again(self, socket: websockets.ClientConnection, fragment: str, interval_s: float) -> None:
        state = ClientState(fragment_id=fragment, page_script_hash=self._page_hash, is_auto_rerun=True)
        state.page_name = self._page
        while True:
            await asyncio.sleep(interval_s)
            await socket.send(BackMsg(rerun_script=state).SerializeToString())


async def _main(port: int, pages: list[str]) -> None:
    tabs = [Tab(port, page) for page in pages]
    running = [asyncio.create_task(tab.run()) for tab in tabs]
    await asyncio.gather(*(tab.is_open.wait() for tab in tabs))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(sum(tab.num_runs for tab in tabs), flush=True)
    for task in running:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2:]))
