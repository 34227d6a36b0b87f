from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.config import Settings, config_file, default_home, load_settings
from engine.errors import SettingsError

WriteToml = Callable[[str], Path]

_REFUSED: list[tuple[str, str, str]] = [
    ("port", "0", "greater than or equal to 1"),
    ("port", "65536", "less than or equal to 65535"),
    ("port", "http", "valid integer"),
    ("host", "", "at least 1 character"),
    ("model", "", "at least 1 character"),
    ("model_name", "", "at least 1 character"),
    ("device", "tpu", "'auto', 'cpu' or 'cuda'"),
    ("dtype", "int8", "'auto', 'float32', 'bfloat16' or 'float16'"),
    ("threads", "0", "greater than or equal to 1"),
    ("threads", "1025", "less than or equal to 1024"),
    ("max_running", "0", "greater than or equal to 1"),
    ("max_waiting", "-1", "greater than or equal to 0"),
    ("max_waiting_tokens", "0", "greater than or equal to 1"),
    ("queue_policy", "drop", "'reject' or 'wait'"),
    ("queue_timeout_s", "0", "greater than 0"),
    ("queue_timeout_s", "86401", "less than or equal to 86400"),
    ("chunk_tokens", "8", "greater than or equal to 16"),
    ("chunk_tokens", "70000", "less than or equal to 65536"),
    ("kv_cache_gib", "0", "greater than 0"),
    ("kv_cache_gib", "nan", "finite number"),
    ("prefix_cache_gib", "-1", "greater than or equal to 0"),
    ("prefix_sharing", "nobody", "'key' or 'all'"),
    ("default_max_tokens", "0", "greater than or equal to 1"),
    ("request_timeout_s", "0", "greater than 0"),
    ("request_timeout_s", "86401", "less than or equal to 86400"),
    ("max_body_mib", "0", "greater than or equal to 1"),
    ("max_body_mib", "1025", "less than or equal to 1024"),
    ("body_timeout_s", "0", "greater than 0"),
    ("body_timeout_s", "86401", "less than or equal to 86400"),
    ("response_cache_mib", "-1", "greater than or equal to 0"),
    ("response_cache_mib", "inf", "finite number"),
    ("response_cache_ttl_s", "0", "greater than 0"),
    ("response_cache_ttl_s", "31536001", "less than or equal to 31536000"),
    ("telemetry_interval_s", "0.01", "greater than or equal to 0.1"),
    ("objective_ttft_p95_s", "0", "greater than 0"),
    ("objective_tpot_p95_s", "inf", "finite number"),
    ("objective_e2e_p95_s", "soon", "valid number"),
    ("weights_max_gib", "0", "greater than 0"),
    ("hub_metadata_ttl_s", "-1", "greater than or equal to 0"),
    ("signatures_folder", "on", "'off', 'warn' or 'enforce'"),
    ("signatures_gguf", "on", "'off', 'warn' or 'enforce'"),
    ("signatures_hub", "on", "'off', 'warn' or 'enforce'"),
    ("allow_remote_code", "maybe", "valid boolean"),
    ("unload_idle", "maybe", "valid boolean"),
    ("environment_profile", "", "at least 1 character"),
    ("log_level", "verbose", "'debug', 'info', 'warning' or 'error'"),
    ("batch_file_days", "0", "greater than 0"),
    ("deleted_conversation_days", "0", "greater than 0"),
    ("deleted_conversation_days", "36501", "less than or equal to 36500"),
    ("log_format", "xml", "'plain' or 'json'"),
    ("log_prompts", "maybe", "valid boolean"),
    ("home", "~nobody-by-that-name/x", "give the whole path"),
]


# Anything may stand in these.
_LISTS = {"allowed_hosts", "api_keys", "preload", "signature_keys", "signature_certificates"}


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteToml:
    def write(text: str) -> Path:
        file = tmp_path / "settings.toml"
        file.write_text(text)
        monkeypatch.setenv("CONSOLE_CONFIG", str(file))
        return file

    return write


def test_defaults_serve_the_sample_on_this_machine_only() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 8501, "sample")
    assert settings.home == default_home()
    assert settings.api_keys == ()


def test_precedence(write_toml: WriteToml, monkeypatch: pytest.MonkeyPatch) -> None:
    write_toml("port = 1001\nmax_running = 2\nmodel = 'none'\n")
    monkeypatch.setenv("CONSOLE_PORT", "1002")
    monkeypatch.setenv("CONSOLE_MAX_RUNNING", "3")
    settings = load_settings({"port": "1003"})
    assert (settings.port, settings.max_running, settings.model, settings.max_waiting) == (1003, 3, "none", 256)


def test_a_file_in_the_working_folder_is_found(tmp_path: Path) -> None:
    assert config_file() is None
    (tmp_path / "console.toml").write_text("port = 1004")
    assert load_settings().port == 1004


def test_a_named_file_wins_over_that_of_the_folder(tmp_path: Path, write_toml: WriteToml) -> None:
    (tmp_path / "console.toml").write_text("port = 1004")
    write_toml("port = 1005")
    assert load_settings().port == 1005


@pytest.mark.parametrize(("name", "value", "bound"), _REFUSED)
def test_a_bad_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str, bound: str) -> None:
    monkeypatch.setenv(f"CONSOLE_{name.upper()}", value)
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    message = str(refusal.value)
    assert message.startswith(f"{name} (CONSOLE_{name.upper()}) = {value!r}: ")
    assert bound in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value", "bound"), _REFUSED)
def test_a_bad_line_and_a_bad_flag_are_refused(write_toml: WriteToml, name: str, value: str, bound: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} \(CONSOLE_"):
        load_settings({name: value})
    write_toml(f"{name} = {value!r}")
    with pytest.raises(SettingsError, match=rf"^{name} \(CONSOLE_"):
        load_settings()


def test_every_bounded_setting_has_a_case() -> None:
    assert set(Settings.model_fields) - {name for name, _, _ in _REFUSED} == _LISTS


def test_every_bad_value_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "0")
    monkeypatch.setenv("CONSOLE_DEVICE", "tpu")
    with pytest.raises(SettingsError) as refusal:
        load_settings()
    assert [line.split(" ")[0] for line in str(refusal.value).splitlines()] == ["port", "device"]


@pytest.mark.parametrize("name", ["CONSOLE_PROT", "console_prot", "CONSOLE_"])
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=rf"^{name}: there is no such setting; known: .*CONSOLE_PORT"):
        load_settings()


def test_an_unknown_line_is_refused(write_toml: WriteToml) -> None:
    write_toml("prot = 1")
    with pytest.raises(SettingsError, match=r"^prot \(CONSOLE_PROT\) = 1: Extra inputs are not permitted"):
        load_settings()


def test_a_named_file_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in (tmp_path / "gone.toml", tmp_path):
        monkeypatch.setenv("CONSOLE_CONFIG", str(place))
        with pytest.raises(SettingsError, match=r"there is no such file; unset it or create"):
            load_settings()


@pytest.mark.parametrize("raw", [b"port = ", b"port: 1", b"\xff\xfe\x00", b"port = 1\nport = 2"])
def test_a_file_that_is_not_toml(write_toml: WriteToml, raw: bytes) -> None:
    file = write_toml("")
    file.write_bytes(raw)
    with pytest.raises(SettingsError, match=rf"^{file}: not valid TOML"):
        load_settings()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "console.example.com"])
def test_addresses_that_other_machines_reach(host: str) -> None:
    assert not load_settings({"host": host}).is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_addresses_that_only_this_machine_reaches(host: str) -> None:
    assert load_settings({"host": host}).is_local


def test_keys_are_split_and_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_API_KEYS", "first-secret, second-secret,,")
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == ["first-secret", "second-secret"]
    assert "secret" not in f"{settings!r} {settings}".replace("SecretStr", "")


def test_keys_from_a_list_in_the_file(write_toml: WriteToml) -> None:
    write_toml('api_keys = ["a-key", "b-key"]')
    assert [key.get_secret_value() for key in load_settings().api_keys] == ["a-key", "b-key"]


@pytest.mark.parametrize("line", ["api_keys = 31337", "api_keys = [31337]", "api_keys = {a = 31337}"])
def test_a_secret_never_shows_in_a_message(write_toml: WriteToml, line: str) -> None:
    write_toml(line)
    with pytest.raises(SettingsError, match=r"^api_keys.*\(hidden\)") as refusal:
        load_settings()
    assert "31337" not in str(refusal.value)


def test_secrets_stay_out_of_other_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_API_KEYS", "hunter2")
    with pytest.raises(SettingsError) as refusal:
        load_settings({"port": 0})
    assert "hunter2" not in str(refusal.value)


def test_the_home_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load_settings({"home": "here"}).home == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings({"home": "~/there"}).home == tmp_path / "there"


def test_settings_are_frozen() -> None:
    settings: Any = load_settings()
    with pytest.raises(ValidationError):
        settings.port = 1


def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="outside ASCII") as refusal:
        load_settings({"api_keys": "schlüssel"})
    assert "schlüssel" not in str(refusal.value)
