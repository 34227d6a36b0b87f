"""Addresses that may carry a password, and never show it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """A URL taken apart. `credentials` are user and password, decoded, and stay out of `shown`, repr and str."""

    scheme: str
    host: str
    port: int | None = None
    path: str = ""
    credentials: tuple[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.shown

    @property
    def shown(self) -> str:
        """The URL without user, password, query and fragment."""
        return f"{self.scheme}://{self.netloc}{self.path}"

    @property
    def netloc(self) -> str:
        """`host:port`, or the host alone where no port was given; an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def effective_port(self) -> int:
        """The port given, or the scheme's."""
        return self.port or DEFAULT_PORTS.get(self.scheme, 1080)

    @property
    def is_loopback(self) -> bool:
        """Is it this machine: `localhost`, 127.0.0.0/8 or ::1."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def parse_address(text: str, default_scheme: str | None = None) -> Address | None:
    """Take a URL apart; None where it is malformed.

    A text without a scheme gets `default_scheme`, and is malformed where there is none. An `@` after the host's part
    is malformed too: it is most likely of a password with an unescaped slash, whose first half would be shown as host.
    """
    if re.search(r"[\s\x00-\x1f\x7f\\]", text):
        return None
    if "://" not in text:
        if default_scheme is None:
            return None
        text = f"{default_scheme}://{text}"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or port == 0 or "@" in f"{parts.path}{parts.query}{parts.fragment}":
        return None
    user, password = parts.username, parts.password
    credentials = None if user is None else (unquote(user), unquote(password or ""))
    return Address(parts.scheme, host, port, parts.path.rstrip("/"), credentials)
