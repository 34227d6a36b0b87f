"""Settings: defaults, then one TOML file, then `CONSOLE_*` environment variables, then the command line.

Every value is checked when the process starts; a bad one is refused with its name, the value, the bound and where
it came from is left to the reader, because the name says it (`CONSOLE_PORT`, or `port` in the file).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from engine.errors import SettingsError

ENV_PREFIX = "CONSOLE_"
SignatureSetting = Literal["off", "warn", "enforce"]
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def default_home() -> Path:
    """Where this user's console keeps its stores and weights."""
    return Path(platformdirs.user_data_dir("autoglm-console", appauthor=False))


class Settings(BaseSettings):
    """What the process was told. Units are in the names; bounds are in the fields."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, allow_inf_nan=False)

    home: Path = Field(default_factory=default_home, description="folder of stores and weights")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8501, ge=1, le=65535, description="port to listen on")
    model: str = Field("sample", min_length=1, description="'sample', a model folder, a .gguf file, or 'none'")
    model_name: str | None = Field(None, min_length=1, description="name that API clients use")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the model runs")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="weights in memory")
    threads: int | None = Field(None, ge=1, le=1024, description="torch threads; unset: one per core")
    max_running: int = Field(
        64, ge=1, le=1024, description="requests in one batch; as many start as caches have room for"
    )
    max_waiting: int = Field(256, ge=0, le=100_000, description="requests queued before new ones are refused")
    max_waiting_tokens: int = Field(
        262_144, ge=1, le=1_000_000_000, description="prompt tokens queued before new requests are refused"
    )
    queue_policy: Literal["reject", "wait"] = Field(
        "reject",
        description="a queue that is full refuses; 'wait' also ends what did not start within queue_timeout_s",
    )
    queue_timeout_s: float = Field(
        30.0, gt=0, le=86_400, description="seconds in the queue after which a request ends, where queue_policy is wait"
    )
    chunk_tokens: int | None = Field(
        None,
        ge=16,
        le=65536,
        description="prompt tokens per forward pass; unset: 256 on a CPU, 2048 on a GPU",
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="memory for KV caches; unset: a quarter of what is free after loading",
    )
    prefix_cache_gib: float | None = Field(
        None,
        ge=0,
        le=4096,
        description="part of the KV caches' memory in which beginnings of prompts are kept; unset: a quarter; 0: none",
    )
    prefix_sharing: Literal["key", "all"] = Field(
        "key",
        description="whose prompts share their beginnings: those of one API key, or all; who measures the time to the "
        "first token can then tell what others send",
    )
    default_max_tokens: int = Field(1024, ge=1, description="answer length where a request names none")
    request_timeout_s: float = Field(300.0, gt=0, le=86_400, description="deadline of a request that names none")
    max_body_mib: int = Field(8, ge=1, le=1024, description="size of a request's body, in MiB")
    body_timeout_s: float = Field(60.0, gt=0, le=86_400, description="seconds that a request's body may take to arrive")
    response_cache_mib: float = Field(
        0.0, ge=0, le=1_048_576, description="memory for answers to deterministic requests; 0: none are kept"
    )
    response_cache_ttl_s: float = Field(3_600.0, gt=0, le=31_536_000, description="seconds that such an answer is kept")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="keys for the API and the sign-in of the pages, separated by commas"
    )
    batch_file_days: float = Field(
        30.0, gt=0, le=36_500, description="days after which files of batches are removed, if no open batch reads them"
    )
    deleted_conversation_days: float = Field(
        30.0, gt=0, le=36_500, description="days after which a deleted conversation is gone for good, with its pictures"
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names under which programs may ask a console without keys, besides localhost, by commas"
    )
    telemetry_interval_s: float = Field(1.0, ge=0.1, le=60, description="seconds between telemetry samples")
    objective_ttft_p95_s: float = Field(1.0, gt=0, description="objective: P95 time to first token")
    objective_tpot_p95_s: float = Field(0.2, gt=0, description="objective: P95 time per output token")
    objective_e2e_p95_s: float = Field(30.0, gt=0, description="objective: P95 end-to-end latency")
    weights_max_gib: float | None = Field(
        None, gt=0, le=1_000_000, description="size of the weights cache; the least used goes first; unset: no bound"
    )
    hub_metadata_ttl_s: float = Field(
        600.0, ge=0, le=86_400, description="seconds that a hub branch's commit is taken as known"
    )
    preload: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="models to have in the weights cache, fetched after the start, separated by commas"
    )
    signatures_folder: SignatureSetting = Field("off", description="signatures of model folders: off, warn, enforce")
    signatures_gguf: SignatureSetting = Field("off", description="signatures of GGUF files: off, warn, enforce")
    signatures_hub: SignatureSetting = Field("off", description="signatures of models from a hub: off, warn, enforce")
    signature_keys: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="public keys that may have signed models, PEM files separated by commas"
    )
    signature_certificates: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="certificates of who may issue signers' certificates, PEM files separated by commas"
    )
    allow_remote_code: bool = Field(False, description="run Python code that comes with a model: only if you trust it")
    unload_idle: bool = Field(False, description="unload models that are idle when another one needs their memory")
    environment_profile: str = Field(
        "auto", min_length=1, description="profile of the environment checks; 'auto': the one that fits the GPUs here"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe line logged")
    log_format: Literal["plain", "json"] = Field(
        "plain", description="'json': the console's log lines are JSON objects, and each request has one at its end"
    )
    log_prompts: bool = Field(False, description="put prompts into those lines: only where that may be stored")

    @field_validator("api_keys", "allowed_hosts", "preload", "signature_keys", "signature_certificates", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("api_keys")
    @classmethod
    def _sendable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(not key.get_secret_value().isascii() for key in keys):
            raise ValueError("a key has a character outside ASCII, which no HTTP header can carry: choose another key")
        return keys

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().resolve()
        except RuntimeError as error:
            raise ValueError(f"{error}; give the whole path") from error

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the console."""
        return self.host in LOOPBACK_HOSTS

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file()
        sources = (init_settings, env_settings)
        return sources if file is None else (*sources, TomlConfigSettingsSource(settings_cls, file))


def config_file() -> Path | None:
    """The TOML file in force: `$CONSOLE_CONFIG`, else `console.toml` in the working folder, else none."""
    named = os.environ.get(f"{ENV_PREFIX}CONFIG")
    if named:
        return Path(named)
    here = Path("console.toml")
    return here if here.is_file() else None


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings; `overrides` are the command line's and win.

    Raises:
        SettingsError: one line per bad value with its name, the value and the bound.
    """
    file = config_file()
    if file is not None and not file.is_file():
        raise SettingsError(f"CONSOLE_CONFIG={file}: there is no such file; unset it or create the file")
    _refuse_unknown_variables()
    try:
        return Settings(**dict(overrides or {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror or error}; make it readable") from error
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(item) for item in error.errors())) from error


def _refuse_unknown_variables() -> None:
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{ENV_PREFIX}CONFIG"}
    unknown = sorted(name for name in os.environ if name.upper().startswith(ENV_PREFIX) and name.upper() not in known)
    if unknown:
        raise SettingsError(f"{unknown[0]}: there is no such setting; known: {', '.join(sorted(known))}")


def _explain(item: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if not name:
        return message
    shown = "(hidden)" if name.startswith("api_keys") else repr(item["input"])
    return f"{name} (CONSOLE_{name.upper()}) = {shown}: {message}"
