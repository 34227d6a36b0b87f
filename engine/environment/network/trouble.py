"""What went wrong on the way to a server, in words, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.network.address import Address
from engine.environment.network.probe import Answer, Trouble
from engine.environment.network.proxy import ProxySetting

# What a machine without a network looks like, as against one with a wrong setting.
_OFFLINE = (Trouble.NAME, Trouble.REFUSED, Trouble.TIMEOUT, Trouble.OTHER)


def is_offline(answer: Answer, proxy: ProxySetting | None) -> bool:
    """May this simply be a machine without a network: nobody was reached, and no proxy was set to be reached."""
    return proxy is None and answer.trouble in _OFFLINE


def judge_untried(
    target: Address, answer: Answer, proxy: ProxySetting | None, is_required: bool, facts: Mapping[str, Fact]
) -> Finding:
    """Of a target behind a proxy that these checks do not speak to: an error where it is required, for nobody knows
    whether it can be reached, else a skip."""
    observed = f"{target} was not asked: {answer.detail}"
    if not is_required or proxy is None:
        return Finding(CheckStatus.SKIP, observed, facts=facts)
    remedy = (
        f"See for yourself with `curl -sI --proxy {proxy.address} {target}`, or set {proxy.variable} to an http:// "
        "proxy, which this check speaks to."
    )
    return Finding(CheckStatus.ERROR, observed, remedy, facts)


def describe_trouble(answer: Answer, target: Address, proxy: ProxySetting | None) -> str:
    """`https://host: its name cannot be resolved (...)`; with a proxy, that it was asked."""
    through = f" through the proxy {proxy.address} of {proxy.variable}" if proxy and proxy.address else ""
    first, whose = ("the proxy", "the proxy's") if through else ("it", "its")
    what = {
        Trouble.NAME: f"{whose} name cannot be resolved",
        Trouble.REFUSED: f"{first} refuses the connection",
        Trouble.TIMEOUT: f"{first} does not answer",
        Trouble.TLS: "TLS fails",
        Trouble.PROXY: "the proxy refuses",
    }.get(answer.trouble or Trouble.OTHER, "the connection fails")
    return f"{target}{through}: {what} ({answer.detail})"


def remedy_for(answer: Answer, target: Address, proxy: ProxySetting | None) -> str:
    """The command or setting that most likely helps."""
    if answer.trouble is Trouble.TLS:
        return (
            "Give Python the certificate authority that signs for this address, a company's own one too: "
            "`export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt` after `sudo update-ca-certificates`; and "
            "compare the clock (`timedatectl`)."
        )
    if answer.trouble is Trouble.PROXY and proxy is not None:
        if answer.detail.startswith("407"):
            return f"Put the user and password into {proxy.variable} (http://user:password@host:port)."
        return f"Have the proxy allow {target.netloc}, or add {target.host} to NO_PROXY if it is reached directly."
    if proxy is not None and proxy.address is not None:
        return f"Correct or unset {proxy.variable}, or start the proxy at {proxy.address.netloc}."
    if answer.trouble is Trouble.NAME:
        return f"Look at DNS (`getent hosts {target.host}`); behind a proxy, set HTTPS_PROXY."
    if target.is_loopback:
        return f"Start the server that belongs at {target.netloc}, or correct the address."
    return f"Allow connections to {target.host} port {target.effective_port}; behind a proxy, set HTTPS_PROXY."
