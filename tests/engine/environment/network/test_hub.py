from __future__ import annotations

import dataclasses

import pytest

from engine.environment.check import CheckStatus, Finding
from engine.environment.network.address import parse_address
from engine.environment.network.hub import DEFAULT_ENDPOINT, HubReading, judge_hub, read_hub
from engine.environment.network.probe import Answer, Trouble
from engine.environment.network.proxy import read_proxies
from engine.environment.profile import NetworkProfile
from tests.engine.environment.network.servers import free_port, serve

ANY, REQUIRED = NetworkProfile(), NetworkProfile(hub_required=True)
HUB = HubReading(parse_address(DEFAULT_ENDPOINT))


def judge(profile: NetworkProfile = ANY, **environ: str) -> Finding:
    return judge_hub(read_hub(environ), profile)


def unreached(trouble: Trouble, detail: str = "", is_default: bool = True, **environ: str) -> HubReading:
    proxy = read_proxies(environ).settings.get("https")
    answer = Answer(trouble=trouble, detail=detail)
    return dataclasses.replace(HUB, is_default=is_default, proxy=proxy, answer=answer)


def test_a_hub_that_answers_passes_with_its_latency() -> None:
    with serve() as server:
        finding = judge(REQUIRED, HF_ENDPOINT=f"http://127.0.0.1:{server.port}/")
    assert finding.status is CheckStatus.PASS
    assert finding.observed.startswith(f"http://127.0.0.1:{server.port} answers in ")
    assert server.seen == [("GET", "/api/models?limit=1", None)]


def test_a_hub_that_wants_a_token_is_reached() -> None:
    with serve(401) as server:
        finding = judge(REQUIRED, HF_ENDPOINT=f"http://127.0.0.1:{server.port}")
    assert (finding.status, "HF_TOKEN" in finding.observed) == (CheckStatus.PASS, True)


@pytest.mark.parametrize("environ", [{"HF_HUB_OFFLINE": "1"}, {"TRANSFORMERS_OFFLINE": "yes"}])
def test_offline_by_setting_asks_nobody(environ: dict[str, str]) -> None:
    with serve() as server:
        environ = {**environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.port}"}
        finding = judge(ANY, **environ)
        required = judge(REQUIRED, **environ)
    assert (finding.status, finding.observed[:19]) == (CheckStatus.SKIP, "offline by setting ")
    assert required.status is CheckStatus.FAIL
    assert (required.remedy or "").startswith("`unset ")
    assert server.seen == []


def test_a_switch_set_to_zero_is_off() -> None:
    with serve() as server:
        finding = judge(HF_HUB_OFFLINE="0", HF_ENDPOINT=f"http://127.0.0.1:{server.port}")
    assert finding.status is CheckStatus.PASS


@pytest.mark.parametrize("trouble", [Trouble.NAME, Trouble.REFUSED, Trouble.TIMEOUT, Trouble.OTHER])
def test_a_machine_without_a_network_is_offline_unless_the_hub_is_required(trouble: Trouble) -> None:
    finding = judge_hub(unreached(trouble, "x"), ANY)
    assert finding.status is CheckStatus.SKIP
    assert finding.observed.startswith("offline: https://huggingface.co: ")
    required = judge_hub(unreached(trouble, "x"), REQUIRED)
    assert required.status is CheckStatus.FAIL
    assert "HTTPS_PROXY" in (required.remedy or "")


def test_an_endpoint_of_ones_own_that_nobody_serves_warns() -> None:
    port = free_port()
    finding = judge(HF_ENDPOINT=f"http://127.0.0.1:{port}")
    assert finding.status is CheckStatus.WARN
    assert finding.observed == f"http://127.0.0.1:{port}: it refuses the connection (connection refused)"
    assert f"Start the server that belongs at 127.0.0.1:{port}" in (finding.remedy or "")
    assert "HF_HUB_OFFLINE=1" in (finding.remedy or "")
    assert judge(REQUIRED, HF_ENDPOINT=f"http://127.0.0.1:{port}").status is CheckStatus.FAIL


def test_tls_that_fails_warns_even_where_nothing_is_required() -> None:
    finding = judge_hub(unreached(Trouble.TLS, "self-signed certificate"), ANY)
    assert finding.status is CheckStatus.WARN
    assert "TLS fails (self-signed certificate)" in finding.observed
    assert "export SSL_CERT_FILE=" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("connect_status", "remedy"), [(407, "user and password into HTTPS_PROXY"), (403, "Have the proxy allow")]
)
def test_a_proxy_that_refuses_warns(connect_status: int, remedy: str) -> None:
    with serve(connect_status=connect_status) as proxy:
        finding = judge(HTTPS_PROXY=f"http://me:hunter2@127.0.0.1:{proxy.port}")
    assert finding.status is CheckStatus.WARN
    assert f"through the proxy http://127.0.0.1:{proxy.port} of HTTPS_PROXY: the proxy refuses" in finding.observed
    assert remedy in (finding.remedy or "")
    assert "hunter2" not in repr(finding)
    assert proxy.seen[0][:2] == ("CONNECT", "huggingface.co:443")


def test_a_proxy_that_is_not_there_warns() -> None:
    port = free_port()
    finding = judge(HTTPS_PROXY=f"http://127.0.0.1:{port}")
    assert finding.status is CheckStatus.WARN
    assert f"start the proxy at 127.0.0.1:{port}" in (finding.remedy or "")


def test_a_malformed_proxy_warns() -> None:
    finding = judge(HTTPS_PROXY="http://me:hun/ter2@proxy")
    assert (finding.status, finding.observed) == (CheckStatus.WARN, "HTTPS_PROXY is malformed")


@pytest.mark.parametrize("scheme", ["socks5", "https"])
@pytest.mark.parametrize(("profile", "status"), [(ANY, CheckStatus.SKIP), (REQUIRED, CheckStatus.ERROR)])
def test_a_proxy_that_this_check_does_not_speak_to_leaves_it_open(
    profile: NetworkProfile, status: CheckStatus, scheme: str
) -> None:
    finding = judge(profile, HTTPS_PROXY=f"{scheme}://me:hunter2@127.0.0.1:1080")
    assert finding.status is status
    assert f"does not speak to a {scheme} proxy" in finding.observed
    assert (f"curl -sI --proxy {scheme}://127.0.0.1:1080 https://" in (finding.remedy or "")) is (profile is REQUIRED)
    assert "hunter2" not in repr(finding)


@pytest.mark.parametrize("endpoint", ["huggingface.co", "ftp://host", "https://me:hun/ter2@host"])
def test_a_malformed_endpoint_warns_and_is_not_shown(endpoint: str) -> None:
    finding = judge(HF_ENDPOINT=endpoint)
    assert finding.status is CheckStatus.WARN
    assert f"`export HF_ENDPOINT={DEFAULT_ENDPOINT}`" in (finding.remedy or "")
    assert "hun" not in finding.observed


def test_a_password_in_the_endpoint_is_neither_shown_nor_sent() -> None:
    with serve() as server:
        finding = judge(HF_ENDPOINT=f"http://me:hunter2@127.0.0.1:{server.port}")
    assert finding.status is CheckStatus.PASS
    assert "hunter2" not in repr(finding)


@pytest.mark.parametrize(
    ("status", "content_type", "remedy"),
    [
        (200, "text/html", "correct HF_ENDPOINT"),
        (302, "text/html", "sign in to the network"),
        (404, "application/json", "correct HF_ENDPOINT"),
        (403, "text/html", "allowed by the firewall"),
        (429, "application/json", "HF_TOKEN"),
        (503, "text/html", "try again later"),
    ],
)
def test_other_answers_warn_with_a_remedy_each(status: int, content_type: str, remedy: str) -> None:
    with serve(status, content_type) as server:
        environ = {"HF_ENDPOINT": f"http://127.0.0.1:{server.port}"}
        finding = judge(ANY, **environ)
        assert judge(REQUIRED, **environ).status is CheckStatus.FAIL
    assert finding.status is CheckStatus.WARN
    assert f"answers {status} with {content_type}" in finding.observed
    assert remedy in (finding.remedy or "")
