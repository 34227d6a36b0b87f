"""`python -m engine.api`: the engine and its API, without pages."""

from __future__ import annotations

from engine.api.app import build_headless_app
from engine.cli import configure_logging, listen_or_exit, prepare_home_or_exit, settings_or_exit
from engine.web_server import build_server


def main() -> None:
    """Serve until told to stop."""
    settings = settings_or_exit("python -m engine.api")
    configure_logging(settings)
    prepare_home_or_exit(settings)
    listener = listen_or_exit(settings)
    build_server(build_headless_app(settings)).run(sockets=[listener])


if __name__ == "__main__":
    main()
