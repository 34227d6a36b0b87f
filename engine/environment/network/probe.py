"""One bounded HTTP request, and how it went: the family's door to the network."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from enum import StrEnum

from engine.environment.network.address import Address

TIMEOUT_S = 2.0
_BODY_BYTES = 64 * 1024


class Trouble(StrEnum):
    """Why there is no answer. `PROXY` is the proxy's own refusal; `UNTRIED` asked nobody."""

    NAME = "name"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    TLS = "tls"
    PROXY = "proxy"
    OTHER = "other"
    UNTRIED = "untried"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer with `status`, or the `trouble` in place of one. `detail` never holds an address or password."""

    status: int | None = None
    trouble: Trouble | None = None
    detail: str = ""
    content_type: str = ""
    latency_s: float | None = None


def probe(target: Address, proxy: Address | None = None, timeout_s: float = TIMEOUT_S) -> Answer:
    """GET `target`, through `proxy` if there is one, and follow nothing.

    Takes `timeout_s` at most, whatever hangs: it runs in a thread of its own, since no time limit holds for the
    resolution of a name, and is left behind when the time is over.
    """
    answers: list[Answer] = []
    thread = threading.Thread(
        target=lambda: answers.append(_exchange(target, proxy, timeout_s)), name="network-probe", daemon=True
    )
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else Answer(trouble=Trouble.TIMEOUT, detail=f"no answer within {timeout_s:g} s")


def _exchange(target: Address, proxy: Address | None, timeout_s: float) -> Answer:
    started_s = time.perf_counter()
    try:
        answer = _request(target, proxy, timeout_s)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _trouble(error)
    return Answer(answer.status, answer.trouble, answer.detail, answer.content_type, time.perf_counter() - started_s)


def _request(target: Address, proxy: Address | None, timeout_s: float) -> Answer:
    if proxy is not None and proxy.scheme != "http":
        return Answer(trouble=Trouble.UNTRIED, detail=f"this check does not speak to a {proxy.scheme} proxy")
    path, headers = target.path or "/", {"Host": target.netloc, "User-Agent": "autoglm-console", "Accept": "*/*"}
    first = proxy or target
    connection: http.client.HTTPConnection
    if target.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(first.host, first.effective_port, timeout=timeout_s, context=context)
        if proxy is not None:
            connection.set_tunnel(target.host, target.effective_port, _sign_in(proxy))
    else:
        connection = http.client.HTTPConnection(first.host, first.effective_port, timeout=timeout_s)
        if proxy is not None:
            path, headers = f"http://{target.netloc}{path}", headers | _sign_in(proxy)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        response.read(_BODY_BYTES)
        if response.status == 407:
            return Answer(trouble=Trouble.PROXY, detail="407 Proxy Authentication Required")
        return Answer(response.status, content_type=response.headers.get_content_type())
    finally:
        connection.close()


def _sign_in(proxy: Address) -> dict[str, str]:
    if proxy.credentials is None:
        return {}
    token = base64.b64encode(":".join(proxy.credentials).encode()).decode()
    return {"Proxy-Authorization": f"Basic {token}"}


def _trouble(error: Exception) -> Answer:
    if isinstance(error, socket.gaierror):
        return Answer(trouble=Trouble.NAME, detail=str(error.strerror))
    if isinstance(error, ssl.SSLCertVerificationError):
        return Answer(trouble=Trouble.TLS, detail=str(error.verify_message))
    if isinstance(error, ssl.SSLError):
        return Answer(trouble=Trouble.TLS, detail=str(error.reason or error.strerror))
    if isinstance(error, ConnectionRefusedError):
        return Answer(trouble=Trouble.REFUSED, detail="connection refused")
    if isinstance(error, TimeoutError):
        return Answer(trouble=Trouble.TIMEOUT, detail="no answer in time")
    if isinstance(error, OSError) and (tunnel := re.fullmatch(r"Tunnel connection failed: (.*)", str(error))):
        return Answer(trouble=Trouble.PROXY, detail=tunnel[1])
    detail = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
    return Answer(trouble=Trouble.OTHER, detail=detail)
