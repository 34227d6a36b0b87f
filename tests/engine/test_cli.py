from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import configure_logging, listen, listen_or_exit, parse_settings, prepare_home_or_exit, settings_or_exit
from engine.config import Settings
from engine.errors import SettingsError


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that another socket listens on."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_flags_win_over_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "1001")
    monkeypatch.setenv("CONSOLE_DTYPE", "float16")
    flags = ["--port", "1002", "--model", "none", "--model-name", "chat", "--log-level", "error", "--home"]
    settings = parse_settings("console", [*flags, str(tmp_path)])
    assert (settings.port, settings.model, settings.model_name, settings.dtype) == (1002, "none", "chat", "float16")
    assert (settings.home, settings.log_level) == (tmp_path, "error")


def test_no_flags_are_no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_HOST", "localhost")
    assert parse_settings("console", []).host == "localhost"


@pytest.mark.parametrize("flags", [["--port", "0"], ["--port", "web"], ["--device", "tpu"]])
def test_a_bad_flag_is_a_settings_error(flags: list[str]) -> None:
    with pytest.raises(SettingsError):
        parse_settings("console", flags)


def test_an_unknown_flag_ends_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings("console", ["--prot", "1"])
    assert ended.value.code == 2
    assert "--prot" in capsys.readouterr().err


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings("console", ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--host", "--port", "--model", "--home", "CONSOLE_"))


def test_a_refusal_is_a_line_each_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["console", "--port", "0", "--device", "tpu"])
    with pytest.raises(SystemExit) as ended:
        settings_or_exit("console")
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["error: port", "error: device"]


def test_listen_takes_connections() -> None:
    port = _free_port()
    with listen(Settings(port=port)), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def test_a_port_in_use_is_one_clear_line(taken_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        listen_or_exit(Settings(port=taken_port))
    assert ended.value.code == 2
    assert capsys.readouterr().err == (
        f"error: 127.0.0.1:{taken_port} is in use: stop what listens there, or start with --port {taken_port + 1}\n"
    )


def test_the_highest_port_suggests_one_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 65_535))
        other.listen()
        with pytest.raises(SettingsError, match=r"start with --port 1$"):
            listen(Settings(port=65_535))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 80, "2001:db8::1"])
def test_an_address_of_another_machine(host: str) -> None:
    settings = Settings(host=host, port=_free_port(), api_keys=("key",))  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"^cannot listen on .*give an address of this machine with --host$"):
        listen(settings)


def test_a_port_without_the_right(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_socket: socket.socket, _address: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(SettingsError, match=r"127\.0\.0\.1:80 needs more rights: choose a port of 1024 or above"):
        listen(Settings(port=80))


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_logging_has_the_asked_for_level(root_logger: logging.Logger, level: str) -> None:
    root_logger.handlers.clear()  # pytest's own, beside which basicConfig does nothing
    configure_logging(Settings(log_level=level))  # type: ignore[arg-type]
    assert root_logger.level == getattr(logging, level.upper())


def test_an_open_address_without_a_key_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prepare_home_or_exit(Settings(home=tmp_path, host="0.0.0.0"))
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: host '0.0.0.0' can be reached from other machines")


def test_logs_as_json(root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    root_logger.handlers.clear()
    configure_logging(Settings(log_format="json"))
    logging.getLogger("engine.x").warning("two %s", "words")
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["logger"], line["message"]) == ("warning", "engine.x", "two words")
