from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus, Finding
from engine.environment.network.address import Address
from engine.environment.network.probe import Answer, Trouble
from engine.environment.network.registry import RegistryReading, judge_registry, locate_registry, read_registry
from engine.environment.profile import NetworkProfile
from tests.engine.environment.network.servers import free_port, serve

ANY, REQUIRED = NetworkProfile(), NetworkProfile(registry_required=True)


def judge(name: str, profile: NetworkProfile = ANY, **environ: str) -> Finding:
    return judge_registry(read_registry(name, environ), profile)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("localhost:5000/models", "http://localhost:5000"),
        ("registry.example", "https://registry.example"),
        ("registry.example:5000", "https://registry.example:5000"),
        ("http://registry.example:5000", "http://registry.example:5000"),
        ("https://127.0.0.1:5000", "https://127.0.0.1:5000"),
        ("docker.io", "https://registry-1.docker.io"),
        ("me:hunter2@registry.example", "https://registry.example"),
    ],
)
def test_where_a_registry_listens(name: str, shown: str) -> None:
    assert str(locate_registry(name)) == shown


@pytest.mark.parametrize(("status", "told"), [(200, "answers in "), (401, "wants a sign-in (`docker login ")])
def test_one_that_answers_passes(status: int, told: str) -> None:
    with serve(status) as server:
        finding = judge(f"127.0.0.1:{server.port}", REQUIRED)
    assert finding.status is CheckStatus.PASS
    assert told in finding.observed
    assert server.seen == [("GET", "/v2/", None)]


@pytest.mark.parametrize(("profile", "status"), [(ANY, CheckStatus.WARN), (REQUIRED, CheckStatus.FAIL)])
def test_one_that_nobody_serves(profile: NetworkProfile, status: CheckStatus) -> None:
    port = free_port()
    finding = judge(f"127.0.0.1:{port}", profile)
    assert finding.status is status
    assert finding.observed == f"http://127.0.0.1:{port}: it refuses the connection (connection refused)"
    assert f"Start the server that belongs at 127.0.0.1:{port}" in (finding.remedy or "")


def test_loopback_is_asked_without_the_proxy() -> None:
    with serve() as server, serve() as proxy:
        assert judge(f"127.0.0.1:{server.port}", HTTP_PROXY=f"http://127.0.0.1:{proxy.port}").status is CheckStatus.PASS
        assert proxy.seen == []


def test_another_host_is_asked_through_the_proxy() -> None:
    with serve(connect_status=403) as proxy:
        finding = judge("registry.invalid", HTTPS_PROXY=f"http://127.0.0.1:{proxy.port}")
    assert finding.status is CheckStatus.WARN
    assert "add registry.invalid to NO_PROXY" in (finding.remedy or "")


def test_a_server_that_is_no_registry() -> None:
    with serve(404, "text/html") as server:
        finding = judge(f"127.0.0.1:{server.port}", REQUIRED)
    assert finding.status is CheckStatus.FAIL
    assert "as no image registry does" in finding.observed
    assert f"curl -i http://127.0.0.1:{server.port}/v2/" in (finding.remedy or "")


def test_a_registry_without_tls_names_the_engines_setting() -> None:
    with serve() as server:
        finding = judge(f"https://127.0.0.1:{server.port}")
    assert finding.status is CheckStatus.WARN
    assert f'"insecure-registries": ["127.0.0.1:{server.port}"]' in (finding.remedy or "")


def test_an_unknown_authority_names_the_engines_folder() -> None:
    answer = Answer(trouble=Trouble.TLS, detail="self-signed certificate")
    finding = judge_registry(RegistryReading(Address("https", "registry.example", 5000), None, answer), ANY)
    assert finding.status is CheckStatus.WARN
    assert "/etc/docker/certs.d/registry.example:5000/ca.crt" in (finding.remedy or "")


def test_none_named_is_a_skip_unless_one_is_required() -> None:
    assert judge_registry(None, ANY).status is CheckStatus.SKIP
    finding = judge_registry(None, REQUIRED)
    assert finding.status is CheckStatus.FAIL
    assert "[network] registry =" in (finding.remedy or "")


@pytest.mark.parametrize("name", ["me:hun/ter2@registry", "host:port", "ftp://host"])
def test_a_malformed_name_warns_and_is_not_shown(name: str) -> None:
    finding = judge(name)
    assert finding.status is CheckStatus.WARN
    assert "hun" not in repr(finding)


def test_a_malformed_proxy_is_told() -> None:
    finding = judge("registry.invalid", HTTPS_PROXY="http://me:hun/ter2@proxy")
    assert (finding.status, finding.observed) == (CheckStatus.WARN, "HTTPS_PROXY is malformed")


@pytest.mark.parametrize("scheme", ["socks5", "https"])
@pytest.mark.parametrize(("profile", "status"), [(ANY, CheckStatus.SKIP), (REQUIRED, CheckStatus.ERROR)])
def test_a_proxy_that_this_check_does_not_speak_to_leaves_it_open(
    profile: NetworkProfile, status: CheckStatus, scheme: str
) -> None:
    finding = judge("registry.invalid", profile, HTTPS_PROXY=f"{scheme}://me:hunter2@127.0.0.1:1080")
    assert finding.status is status
    assert f"does not speak to a {scheme} proxy" in finding.observed
    assert (f"curl -sI --proxy {scheme}://127.0.0.1:1080 https://" in (finding.remedy or "")) is (profile is REQUIRED)
    assert "hunter2" not in repr(finding)


@pytest.mark.docker
def test_the_real_registry() -> None:
    finding = judge("127.0.0.1:5000", REQUIRED)
    if finding.status is CheckStatus.FAIL and "refuses the connection" in finding.observed:
        pytest.skip("no image registry at 127.0.0.1:5000")
    assert finding.status is CheckStatus.PASS
    assert finding.facts == {"registry": "127.0.0.1:5000", "status": 200, "trouble": None}
