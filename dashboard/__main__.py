"""`python -m dashboard`: pages, API and metrics on one port, one engine behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import streamlit as st

from dashboard.page_runs import keep_what_is_drawn
from dashboard.resources import give_console
from engine import Settings, open_console
from engine.api.app import Api
from engine.cli import configure_logging, listen_or_exit, prepare_home_or_exit, settings_or_exit
from engine.web_server import build_server

_ENTRYPOINT = Path(__file__).with_name("app.py")


def build_app(settings: Settings) -> st.App:
    """The ASGI application. A mounted app's own lifespan does not run, so the console's life is tied to this one."""
    keep_what_is_drawn()
    api = Api()

    @asynccontextmanager
    async def lifespan(_: st.App) -> AsyncIterator[dict[str, Any]]:
        console = open_console(settings)
        give_console(console)
        api.attach(console)
        try:
            yield {}
        finally:
            api.attach(None)
            give_console(None)
            console.close()

    return st.App(_ENTRYPOINT, routes=api.routes, lifespan=lifespan)


def main() -> None:
    """Serve until told to stop."""
    settings = settings_or_exit("python -m dashboard")
    configure_logging(settings)
    prepare_home_or_exit(settings)
    listener = listen_or_exit(settings)
    print(f"AutoGLM Console: http://{settings.host}:{settings.port}", flush=True)
    build_server(build_app(settings)).run(sockets=[listener])


if __name__ == "__main__":
    main()
