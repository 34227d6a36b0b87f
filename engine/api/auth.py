"""Who asks, and whether they may: bearer keys and their scopes. Keys are never logged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Annotated

from fastapi import Request, Response, Security
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from engine.api.errors import console_error_response
from engine.api.provider import console_of
from engine.console import Console
from engine.errors import AuthenticationError, ConsoleError, HostError, ScopeError
from engine.keyring import ANONYMOUS, Caller, Keyring
from engine.state.api_keys import Scope

Endpoint = Callable[[Request], Awaitable[Response]]


def admit(console: Console, authorization: str, host: str, *scopes: Scope) -> Caller:
    """Who asks with these two headers, and that they may. A browser here that opened another site's page can be made to
    take that site's name for this console (DNS rebinding), and ask in the name of whoever sits before it; so where no
    key is needed, names that others may own are refused.

    Raises:
        AuthenticationError, ScopeError: see `authorize`.
        HostError: the name is one of those.
    """
    caller = authorize(console.keys, _secret_in(authorization), *scopes)
    if caller is ANONYMOUS and _has_domain(host, console.settings.allowed_hosts):
        raise HostError(
            f"without a key this console does not answer to {host[:200]!r}: ask it as 127.0.0.1 or localhost, make a "
            "key, or put the name into CONSOLE_ALLOWED_HOSTS"
        )
    return caller


def authorize(keys: Keyring, secret: str | None, *scopes: Scope) -> Caller:
    """Who sends this secret, one of `scopes` at least being theirs. Where none of them is guarded anybody may ask, and
    whatever key a client sends because it must send one is let pass.

    Raises:
        AuthenticationError: there is no secret, or none that is in force.
        ScopeError: its key has none of the scopes.
    """
    is_guarded = all(keys.is_guarded(scope) for scope in scopes)
    try:
        caller = _identify(keys, secret)
    except AuthenticationError:
        if is_guarded:
            raise
        return ANONYMOUS
    if is_guarded and caller.scopes.isdisjoint(scopes):
        raise ScopeError(
            f"the key {caller.name!r} has the scopes {', '.join(sorted(caller.scopes)) or 'none'}; this needs "
            f"{' or '.join(scopes)}: use a key that has it"
        )
    return caller


def _identify(keys: Keyring, secret: str | None) -> Caller:
    if not secret:
        raise AuthenticationError("send a key in the header `Authorization: Bearer KEY`; the settings page makes them")
    return keys.identify(secret)


def _secret_in(authorization: str) -> str | None:
    """The bearer key of the header; None where it has none."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else None


class _Guard(SecurityBase):
    """The dependency that lets a caller with one of `scopes` in, and the scheme that the document tells of. One step
    and not several, because each dependency costs a request more than telling who asks."""

    def __init__(self, *scopes: Scope) -> None:
        self.model = HTTPBearerModel(description="A key from the settings page or from CONSOLE_API_KEYS.")
        self.scheme_name = "HTTPBearer"
        self._scopes = scopes

    async def __call__(self, http: Request) -> Caller:
        return _admit(console_of(http), http, self._scopes)


class _AdminGuard(_Guard):
    """Where administration needs no key, pages of other sites that a browser here has open are kept out."""

    async def __call__(self, http: Request) -> Caller:
        caller = await super().__call__(http)
        origin, host = http.headers.get("origin"), http.headers.get("host", "")
        if caller is ANONYMOUS and origin is not None and origin.partition("://")[2] != host:
            raise ScopeError(
                f"a page of {origin} may not administer this console without a key: make one on the settings page"
            )
        return caller


def _admit(console: Console, http: Request, scopes: tuple[Scope, ...]) -> Caller:
    headers = http.headers
    return admit(console, headers.get("authorization", ""), headers.get("host", ""), *scopes)


def _has_domain(host: str, allowed: Iterable[str]) -> bool:
    """Whether a `Host` is a name that anybody may own, and so have lead here: no address, none of the names without a
    dot that only this network has, and none of the `allowed`."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.lower()
    if name in map(str.lower, allowed):
        return False
    try:
        ip_address(name.strip("[]"))
    except ValueError:
        return "." in name.removesuffix(".localhost")
    return False


def guard(endpoint: Endpoint, *scopes: Scope) -> Endpoint:
    """A plain route that only a caller with one of `scopes` may use; before the console is open anybody may."""

    async def guarded(http: Request) -> Response:
        console: Console | None = getattr(http.app.state, "console", None)
        try:
            if console is not None:
                _admit(console, http, scopes)
        except ConsoleError as error:
            return console_error_response(error)
        return await endpoint(http)

    return guarded


InferenceCaller = Annotated[Caller, Security(_Guard(Scope.INFERENCE))]
MetricsCaller = Annotated[Caller, Security(_Guard(Scope.METRICS, Scope.ADMIN))]
AdminCaller = Annotated[Caller, Security(_AdminGuard(Scope.ADMIN))]


async def require_admin(_caller: AdminCaller) -> None:
    """For whole applications that only administrators may use."""


async def require_metrics(_caller: MetricsCaller) -> None:
    """For routers of readings."""


async def require_key(_caller: InferenceCaller) -> None:
    """For routers whose endpoints may be used for inference, and do not ask by whom."""
