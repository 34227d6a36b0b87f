"""Can images be pulled from the registry that the profile names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from engine.environment.check import CheckStatus, Fact, Finding, severity
from engine.environment.network.address import Address, parse_address
from engine.environment.network.probe import Answer, Trouble, probe
from engine.environment.network.proxy import ProxySetting, read_proxies
from engine.environment.network.trouble import describe_trouble, judge_untried, remedy_for
from engine.environment.profile import NetworkProfile

_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
# OpenSSL's words for an answer in plain HTTP.
_PLAIN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


@dataclass(frozen=True)
class RegistryReading:
    """`address` is None where the name is malformed, `answer` where nothing was asked."""

    address: Address | None
    proxy: ProxySetting | None = None
    answer: Answer | None = None


def locate_registry(name: str) -> Address | None:
    """Where the registry of an image name's first part listens: HTTP on loopback, as the engine has it, else HTTPS."""
    address = parse_address(name, "https")
    if address is None or address.scheme not in ("http", "https"):
        return None
    host = _DOCKER_HUB.get(address.host, address.host)
    scheme = "http" if address.is_loopback and "://" not in name else address.scheme
    return dataclasses.replace(address, scheme=scheme, host=host, path="", credentials=None)


def read_registry(name: str, environ: Mapping[str, str]) -> RegistryReading:
    """Ask the registry for its API's root; takes 2 s at most. Loopback is asked directly, as the engine does."""
    address = locate_registry(name)
    if address is None:
        return RegistryReading(None)
    proxy = None if address.is_loopback else read_proxies(environ).find(address)
    if proxy is not None and proxy.address is None:
        return RegistryReading(address, proxy)
    answer = probe(dataclasses.replace(address, path="/v2/"), proxy.address if proxy else None)
    return RegistryReading(address, proxy, answer)


def judge_registry(reading: RegistryReading | None, profile: NetworkProfile) -> Finding:
    """Warn about a registry that the profile names and nobody reaches; fail where it requires it."""
    defect = severity(profile.registry_required)
    if reading is None:
        if profile.registry_required:
            return Finding(defect, "the profile requires a registry and names none", _NAME_ONE)
        return Finding(CheckStatus.SKIP, "the profile names no registry (network.registry)")
    address, proxy, answer = reading.address, reading.proxy, reading.answer
    if address is None:
        return Finding(defect, "network.registry is malformed (not shown, since it may hold a password)", _NAME_ONE)
    if answer is None:
        variable = proxy.variable if proxy else "the proxy's variable"
        return Finding(defect, f"{variable} is malformed", f"Correct or unset {variable}; see the check of the proxy.")
    facts: dict[str, Fact] = {"registry": address.netloc, "status": answer.status, "trouble": answer.trouble}
    if answer.trouble is Trouble.UNTRIED:
        return judge_untried(address, answer, proxy, profile.registry_required, facts)
    if answer.trouble is not None:
        return Finding(defect, describe_trouble(answer, address, proxy), _remedy(answer, address, proxy), facts)
    latency = f"in {(answer.latency_s or 0.0) * 1000:.0f} ms"
    if answer.status == 200:
        return Finding(CheckStatus.PASS, f"{address} answers {latency}", facts=facts)
    if answer.status == 401:
        observed = f"{address} answers {latency} and wants a sign-in (`docker login {address.netloc}`)"
        return Finding(CheckStatus.PASS, observed, facts=facts)
    remedy = f"Correct network.registry: `curl -i {address}/v2/` should answer 200 or 401, as image registries do."
    return Finding(defect, f"{address}/v2/ answers {answer.status}, as no image registry does", remedy, facts)


_NAME_ONE = (
    'Set it in the profile as host and port, without user or path: [network] registry = "registry.example:5000".'
)


def _remedy(answer: Answer, address: Address, proxy: ProxySetting | None) -> str:
    if answer.trouble is Trouble.TLS and answer.detail in _PLAIN:
        return (
            f'Give the registry a certificate, or add "insecure-registries": ["{address.netloc}"] to '
            "/etc/docker/daemon.json and `sudo systemctl restart docker`: it speaks plain HTTP."
        )
    if answer.trouble is Trouble.TLS:
        return (
            f"Put the registry's authority into /etc/docker/certs.d/{address.netloc}/ca.crt, for the engine to trust."
        )
    return remedy_for(answer, address, proxy)
