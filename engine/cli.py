"""The command line that both servers share: a few flags over the settings, and a socket that is really ours."""

from __future__ import annotations

import argparse
import errno
import logging
import socket
import sys
from collections.abc import Sequence

from engine.config import Settings, load_settings
from engine.console import check_guarded, prepare_home
from engine.errors import SettingsError, StoreError
from engine.log_lines import JsonFormatter

_FLAGS = ("host", "port", "model", "model-name", "device", "dtype", "home", "log-level")


def parse_settings(program: str, arguments: Sequence[str] | None = None) -> Settings:
    """Settings with the command line's flags on top.

    Raises:
        SettingsError: a value is refused.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=f"Every setting is also a variable, CONSOLE_{'{NAME}'}, and a line in console.toml."
    )
    for flag in _FLAGS:
        description = Settings.model_fields[flag.replace("-", "_")].description
        parser.add_argument(f"--{flag}", help=description)
    given = vars(parser.parse_args(arguments))
    return load_settings({name: value for name, value in given.items() if value is not None})


def settings_or_exit(program: str) -> Settings:
    """Settings, or the refusal on standard error and exit code 2."""
    try:
        return parse_settings(program)
    except SettingsError as error:
        sys.exit(_refuse(str(error)))


def prepare_home_or_exit(settings: Settings) -> None:
    """Make the home folder and see that a key guards what others can reach, or refuse on standard error with exit
    code 2."""
    try:
        prepare_home(settings.home)
        check_guarded(settings)
    except (StoreError, SettingsError) as error:
        sys.exit(_refuse(str(error)))


def configure_logging(settings: Settings) -> None:
    """One line per event on standard error, as text or as JSON. Prompts are logged in JSON only, and only where the
    settings say so."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if settings.log_format == "json" else plain)
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler])
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # else every check of a remote instance is a line


def listen(settings: Settings) -> socket.socket:
    """A listening socket on the settings' host and port.

    Raises:
        SettingsError: the port is taken, or the address is not this machine's.
    """
    try:
        listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    except OSError as error:
        raise SettingsError(_explain_bind(error, settings)) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(1024)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise SettingsError(_explain_bind(error, settings)) from error
    return listener


def listen_or_exit(settings: Settings) -> socket.socket:
    """A listening socket, or the refusal on standard error and exit code 2."""
    try:
        return listen(settings)
    except SettingsError as error:
        sys.exit(_refuse(str(error)))


def _explain_bind(error: OSError | UnicodeError, settings: Settings) -> str:
    where = f"{settings.host}:{settings.port}"
    if isinstance(error, UnicodeError):
        return f"cannot listen on {where}: {error}; give an address of this machine with --host"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop what listens there, or start with --port {settings.port % 65535 + 1}"
    if error.errno == errno.EACCES:
        return f"{where} needs more rights: choose a port of 1024 or above with --port"
    return f"cannot listen on {where}: {error.strerror or error}; give an address of this machine with --host"


def _refuse(message: str) -> int:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return 2
