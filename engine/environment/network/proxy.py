"""The proxies that the environment names, by the rules that Python's HTTP clients follow."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.network.address import Address, parse_address

LOOPBACK = ("127.0.0.1", "localhost")
_EXAMPLE = "http://proxy.example:3128"


@dataclass(frozen=True)
class ProxySetting:
    """One variable that is set, by the name it goes by; `address` is None where its value is malformed."""

    variable: str
    address: Address | None


@dataclass(frozen=True)
class ProxySettings:
    """`settings` by the scheme they are for: http, https, all. `can_socks`: the package for SOCKS is installed."""

    settings: Mapping[str, ProxySetting]
    no_proxy: str = ""
    no_proxy_variable: str = "NO_PROXY"
    can_socks: bool = False

    def find(self, target: Address) -> ProxySetting | None:
        """The proxy that a request to `target` goes through; None is none."""
        if self.is_bypassed(target.host):
            return None
        return self.settings.get(target.scheme) or self.settings.get("all")

    def is_bypassed(self, host: str) -> bool:
        """Does NO_PROXY name the host, a domain above it, or everything.

        Ranges like 127.0.0.0/8 count for nothing here: most clients do not know them.
        """
        entries = [entry.strip().lower().removeprefix("*").lstrip(".") for entry in self.no_proxy.split(",")]
        if "*" in (entry.strip() for entry in self.no_proxy.split(",")):
            return True
        return any(entry and f".{host.lower()}".endswith(f".{entry}") for entry in entries)


def read_proxies(environ: Mapping[str, str]) -> ProxySettings:
    """The settings in `environ`; lower-case names win over upper-case ones, as in Python's clients and curl."""
    settings = {}
    for scheme in ("http", "https", "all"):
        variable = _variable(environ, f"{scheme}_proxy")
        if environ.get(variable):
            settings[scheme] = ProxySetting(variable, _parse(environ[variable]))
    variable = _variable(environ, "no_proxy")
    can_socks = importlib.util.find_spec("socksio") is not None
    return ProxySettings(settings, environ.get(variable, ""), variable, can_socks)


def judge_proxy(proxies: ProxySettings) -> Finding:
    """Warn about a value that no client understands, and about a proxy that would be asked for this machine itself."""
    settings = proxies.settings
    if not settings:
        return Finding(CheckStatus.PASS, "no proxy is set", facts={"no_proxy": proxies.no_proxy})
    observed = ", ".join(f"{one.variable} {_show(one.address)}" for one in settings.values())
    observed += f", {proxies.no_proxy_variable} {proxies.no_proxy or 'not set'}"
    facts: dict[str, Fact] = {f"{scheme}_proxy": _show(one.address) for scheme, one in settings.items()}
    facts["no_proxy"] = proxies.no_proxy
    remedies = [_correct(one, proxies.can_socks) for one in settings.values()]
    remedies.append(_exempt_loopback(proxies))
    remedy = " ".join(text for text in remedies if text)
    return Finding(CheckStatus.WARN if remedy else CheckStatus.PASS, observed, remedy or None, facts)


def _variable(environ: Mapping[str, str], name: str) -> str:
    return name if environ.get(name) else name.upper()


def _parse(text: str) -> Address | None:
    """A proxy has no path: one there is a slash in a password, or a mistake."""
    address = parse_address(text.strip(), "http")
    is_proxy = address is not None and not address.path and address.scheme in ("http", "https", "socks5", "socks5h")
    return address if is_proxy else None


def _show(address: Address | None) -> str:
    if address is None:
        return "malformed (not shown, since it may hold a password)"
    return f"{address}{' with a password' if address.credentials else ''}"


def _correct(setting: ProxySetting, can_socks: bool) -> str | None:
    variable, address = setting.variable, setting.address
    if address is None:
        return (
            f"`export {variable}={_EXAMPLE}`: the value must be scheme, host and port; in a user name or password, "
            "write / as %2F, @ as %40 and # as %23."
        )
    if address.scheme.startswith("socks") and not can_socks:
        return f"`pip install socksio`, or set {variable} to an http:// proxy: without it no client here speaks SOCKS."
    return None


def _exempt_loopback(proxies: ProxySettings) -> str | None:
    """Only plain http matters: the API and the pages on loopback have no TLS."""
    is_proxied = "http" in proxies.settings or "all" in proxies.settings
    missing = [host for host in LOOPBACK if not proxies.is_bypassed(host)]
    if not is_proxied or not missing:
        return None
    value = ",".join([entry.strip() for entry in proxies.no_proxy.split(",") if entry.strip()] + missing)
    return (
        f"`export {proxies.no_proxy_variable}={value}`: now requests to the console's API on {' and '.join(missing)} "
        "go to the proxy."
    )
