"""Can models be downloaded from the hub, Hugging Face's or a mirror of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from engine.environment.check import CheckStatus, Fact, Finding, severity
from engine.environment.network.address import Address, parse_address
from engine.environment.network.probe import Answer, Trouble, probe
from engine.environment.network.proxy import ProxySetting, read_proxies
from engine.environment.network.trouble import describe_trouble, is_offline, judge_untried, remedy_for
from engine.environment.profile import NetworkProfile

DEFAULT_ENDPOINT = "https://huggingface.co"
_TRUE = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its switches
_OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_OFFLINE_ADVICE = "To work offline on purpose, `export HF_HUB_OFFLINE=1`: then nothing waits for the hub."


@dataclass(frozen=True)
class HubReading:
    """`offline_by` is the variable that switches the hub off; `endpoint` is None where HF_ENDPOINT is malformed.
    `answer` is None where nothing was asked."""

    endpoint: Address | None
    is_default: bool = True
    offline_by: str | None = None
    proxy: ProxySetting | None = None
    answer: Answer | None = None


def read_hub(environ: Mapping[str, str]) -> HubReading:
    """Ask the hub for one model's name, unless it is switched off; takes 2 s at most."""
    text = environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    endpoint = parse_address(text)
    if endpoint is not None and endpoint.scheme not in ("http", "https"):
        endpoint = None
    reading = HubReading(endpoint, text.rstrip("/") == DEFAULT_ENDPOINT)
    switch = next((name for name in _OFFLINE_VARIABLES if environ.get(name)), None)
    if switch is not None and environ[switch].upper() in _TRUE:
        return dataclasses.replace(reading, offline_by=f"{switch}={environ[switch]}")
    if endpoint is None:
        return reading
    proxy = read_proxies(environ).find(endpoint)
    if proxy is not None and proxy.address is None:
        return dataclasses.replace(reading, proxy=proxy)
    api = dataclasses.replace(endpoint, path=f"{endpoint.path}/api/models?limit=1", credentials=None)
    answer = probe(api, proxy.address if proxy else None)
    return dataclasses.replace(reading, proxy=proxy, answer=answer)


def judge_hub(reading: HubReading, profile: NetworkProfile) -> Finding:
    """Fail only where the profile requires the hub.

    Where it does not, a machine that reaches nothing is offline, which is a mode and a skip. A setting that leads
    nowhere, TLS that fails and a refusal are warnings all the same.
    """
    defect = severity(profile.hub_required)
    if reading.offline_by is not None:
        observed = f"offline by setting ({reading.offline_by})"
        if profile.hub_required:
            return Finding(defect, observed, f"`unset {reading.offline_by.split('=')[0]}`: the profile needs the hub.")
        return Finding(CheckStatus.SKIP, observed)
    if reading.endpoint is None:
        observed = "HF_ENDPOINT is malformed (not shown, since it may hold a password)"
        return Finding(defect, observed, f"`export HF_ENDPOINT={DEFAULT_ENDPOINT}`, or unset it.")
    if reading.answer is None:
        variable = reading.proxy.variable if reading.proxy else "the proxy's variable"
        return Finding(defect, f"{variable} is malformed", f"Correct or unset {variable}; see the check of the proxy.")
    return _judge_answer(reading, reading.endpoint, reading.answer, profile)


def _judge_answer(reading: HubReading, endpoint: Address, answer: Answer, profile: NetworkProfile) -> Finding:
    defect = severity(profile.hub_required)
    facts: dict[str, Fact] = {"endpoint": str(endpoint), "status": answer.status, "trouble": answer.trouble}
    if answer.trouble is Trouble.UNTRIED:
        return judge_untried(endpoint, answer, reading.proxy, profile.hub_required, facts)
    if answer.trouble is not None:
        observed = describe_trouble(answer, endpoint, reading.proxy)
        is_mode = is_offline(answer, reading.proxy) and reading.is_default and not profile.hub_required
        if is_mode:
            return Finding(CheckStatus.SKIP, f"offline: {observed}; folders and files still load", facts=facts)
        remedy = remedy_for(answer, endpoint, reading.proxy)
        return Finding(defect, observed, remedy if profile.hub_required else f"{remedy} {_OFFLINE_ADVICE}", facts)
    latency = f" in {(answer.latency_s or 0.0) * 1000:.0f} ms"
    if answer.status == 200 and answer.content_type == "application/json":
        return Finding(CheckStatus.PASS, f"{endpoint} answers{latency}", facts=facts)
    if answer.status == 401:
        return Finding(CheckStatus.PASS, f"{endpoint} answers{latency} and wants a token (HF_TOKEN)", facts=facts)
    observed = f"{endpoint} answers {answer.status} with {answer.content_type or 'no content'}"
    return Finding(defect, observed, _status_remedy(answer.status or 0, endpoint), facts)


def _status_remedy(status: int, endpoint: Address) -> str:
    if status == 429:
        return "Wait some minutes, and set HF_TOKEN: requests with a token have a higher limit."
    if status >= 500:
        return f"The hub itself is in trouble: try again later; `curl -sI {endpoint}` shows whether it still is."
    if status == 403:
        return f"Have {endpoint.netloc} allowed by the firewall or proxy that answers for it."
    return (
        f"This is not the hub's list of models: correct HF_ENDPOINT, or sign in to the network, whose own page answers "
        f"for it (`curl -s {endpoint}/api/models?limit=1`)."
    )
