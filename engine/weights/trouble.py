"""Why the hub gave nothing, each in a sentence with its remedy."""

from __future__ import annotations

import socket
from enum import StrEnum

import httpx2

from engine.errors import WeightsError


class Trouble(StrEnum):
    """Why the hub gave nothing. `MISSING`, `REFUSED` and `MALFORMED` do not go away by themselves.
    `RANGE`: there is nothing from the asked byte on."""

    OFFLINE = "offline"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    MISSING = "missing"
    BUSY = "busy"
    FAILING = "failing"
    BROKEN = "broken"
    RANGE = "range"
    MALFORMED = "malformed"


_TEMPORARY = frozenset({Trouble.UNREACHABLE, Trouble.BUSY, Trouble.FAILING, Trouble.BROKEN, Trouble.RANGE})


class HubError(WeightsError):
    """The hub gave nothing; `retry_after_s` is how long it asks to be left alone."""

    def __init__(self, message: str, trouble: Trouble, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.trouble = trouble
        self.retry_after_s = retry_after_s

    @property
    def is_temporary(self) -> bool:
        """May the same request succeed in a moment."""
        return self.trouble in _TEMPORARY


def explain_break(error: Exception, endpoint: str) -> HubError:
    """What went wrong between here and the hub."""
    if isinstance(error, httpx2.TooManyRedirects | httpx2.InvalidURL | httpx2.UnsupportedProtocol):
        return HubError(f"{endpoint} redirects to nowhere: correct HF_ENDPOINT", Trouble.MALFORMED)
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return HubError(f"{endpoint} cannot be reached ({_cause(error)})", Trouble.UNREACHABLE)
    return HubError(f"the connection to {endpoint} broke ({_cause(error)})", Trouble.BROKEN)


def _cause(error: BaseException) -> str:
    """The system's own words. httpx2's may hold an address with its password, so they are not used."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return "no answer in time" if isinstance(error, httpx2.TimeoutException) else type(error).__name__


def explain_status(response: httpx2.Response, what: str, endpoint: str, has_token: bool) -> HubError:
    """What a status other than success means for who asked for `what`: `org/name@revision`, or a file of it."""
    status, code = response.status_code, response.headers.get("X-Error-Code", "")
    page = f"{endpoint}/{what.partition('@')[0].rpartition(' of ')[2]}"
    if code == "GatedRepo" or status == 403:
        remedy = "" if has_token else " and set HF_TOKEN to a token of that account"
        return HubError(
            f"{what} is gated ({status}): open {page}, accept its terms with your account{remedy}", Trouble.REFUSED
        )
    if status == 401 and has_token:
        return HubError(
            f"{endpoint} does not accept the token for {what} (401): it is expired, revoked, or the model is not "
            "yours to see; set HF_TOKEN to a new one",
            Trouble.REFUSED,
        )
    if status == 401:
        return HubError(
            f"{endpoint} shows {what} to nobody without a token (401): the model is private or there is none of that "
            "name; check the spelling, or set HF_TOKEN",
            Trouble.REFUSED,
        )
    if status == 404:
        missing = {"RevisionNotFound": "no such revision", "EntryNotFound": "no such file"}.get(code, "no such model")
        return HubError(f"{endpoint} has {missing}: {what} (404); check the spelling", Trouble.MISSING)
    if status == 416:
        return HubError(f"{what} ends before the byte asked for (416)", Trouble.RANGE)
    if status == 429:
        remedy = "" if has_token else ", or set HF_TOKEN: requests with a token have a higher limit"
        return HubError(
            f"{endpoint} has had too many requests (429): wait some minutes{remedy}", Trouble.BUSY, _wait_s(response)
        )
    if status >= 500 or status == 408:
        return HubError(
            f"{endpoint} is in trouble itself ({status}): try again later", Trouble.FAILING, _wait_s(response)
        )
    return HubError(f"{endpoint} answers {status} when asked for {what}: correct HF_ENDPOINT", Trouble.MALFORMED)


def _wait_s(response: httpx2.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
