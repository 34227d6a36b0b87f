"""What is known of a remote instance: where it is, what it is called there, what it can, how long to wait for it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.environment.network.address import parse_address
from engine.errors import InvalidRequestError
from engine.scheduling.router import Feature

DEFAULT_PATH = "/v1"


@dataclass(frozen=True, slots=True)
class RemoteSpec:
    """A remote instance as the operator describes it. Its stored key is not part of it.

    Attributes:
        name: what clients and routes call it here.
        base_url: of its API, as OpenAI's clients have it: `http://10.0.0.7:8000/v1`.
        model: the model's id there.
        key_variable: the environment variable that holds its key; None for the stored key, if there is one.
        context_length: None where it is not known; the remote then refuses what is too long.
        bits_per_weight: of its quantization, None where it is not known.
        max_running: requests that are sent to it at once; more are refused here, or go elsewhere.
        check_every_s, check_timeout_s: how often it is asked for its models, and how long that may take.
        silence_s: how long it may send nothing while it answers.
    """

    name: str
    base_url: str
    model: str
    key_variable: str | None = None
    context_length: int | None = None
    features: frozenset[Feature] = frozenset({Feature.TEXT})
    bits_per_weight: float | None = None
    max_running: int = 64
    check_every_s: float = 5.0
    check_timeout_s: float = 3.0
    silence_s: float = 60.0

    def checked(self) -> RemoteSpec:
        """This spec with its URL in one form; raises InvalidRequestError naming the first value that makes no sense."""
        for label, value in (("name", self.name), ("model", self.model)):
            if not value or value != value.strip():
                raise InvalidRequestError(f"{label} is {value!r}: write one without space around it", label)
        _check_variable(self.key_variable)
        for label, number, low, high in (
            ("context_length", self.context_length, 1, math.inf),
            ("bits_per_weight", self.bits_per_weight, 1, 64),
            ("max_running", self.max_running, 1, 4096),
            ("check_every_s", self.check_every_s, 0.05, 3600),
            ("check_timeout_s", self.check_timeout_s, 0.05, 60),
            ("silence_s", self.silence_s, 0.05, 3600),
        ):
            if number is not None and not low <= number <= high:
                raise InvalidRequestError(f"{label} is {number:g}; it must lie between {low:g} and {high:g}", label)
        return replace(self, base_url=_normalize(self.base_url))


def _check_variable(name: str | None) -> None:
    if name is not None and not (name.isidentifier() and name.isascii()):
        raise InvalidRequestError(
            "the environment variable's name is no name (not shown, since it may be a key): give its name, such as "
            "VLLM_API_KEY",
            "key_variable",
        )


def _normalize(url: str) -> str:
    address = parse_address(url.strip())
    if address is None or address.scheme not in ("http", "https"):
        raise InvalidRequestError(
            "the base URL is malformed (not shown, since it may hold a password): write it like "
            "http://10.0.0.7:8000/v1",
            "base_url",
        )
    if address.credentials is not None:
        raise InvalidRequestError(
            f"the base URL of {address.shown} holds a password: leave it out and give the key by an environment "
            "variable's name, or store it",
            "base_url",
        )
    return address.shown if address.path else f"{address.shown}{DEFAULT_PATH}"
