from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus, Finding
from engine.environment.network.address import parse_address
from engine.environment.network.proxy import ProxySettings, judge_proxy, read_proxies


def judge(**environ: str) -> Finding:
    return judge_proxy(read_proxies(environ))


def find(url: str, **environ: str) -> str | None:
    address = parse_address(url)
    assert address is not None
    setting = read_proxies(environ).find(address)
    return None if setting is None else str(setting.address)


def test_no_proxy_passes() -> None:
    finding = judge()
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "no proxy is set")


def test_a_proxy_is_shown_without_its_password() -> None:
    finding = judge(HTTPS_PROXY="http://me:hunter2@proxy:3128", NO_PROXY="localhost,127.0.0.1")
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "HTTPS_PROXY http://proxy:3128 with a password, NO_PROXY localhost,127.0.0.1"
    assert "hunter2" not in repr(finding)
    assert finding.facts["https_proxy"] == "http://proxy:3128 with a password"


def test_a_proxy_for_http_without_loopback_in_no_proxy_warns() -> None:
    finding = judge(HTTP_PROXY="http://proxy:3128", NO_PROXY="example.com, localhost")
    assert finding.status is CheckStatus.WARN
    assert (finding.remedy or "").startswith("`export NO_PROXY=example.com,localhost,127.0.0.1`")


@pytest.mark.parametrize("no_proxy", ["*", "localhost,127.0.0.1", " 127.0.0.1 , .localhost", "localhost,127.0.0.1,::1"])
def test_loopback_may_be_exempt_in_several_ways(no_proxy: str) -> None:
    assert judge(all_proxy="http://proxy:3128", no_proxy=no_proxy).status is CheckStatus.PASS


def test_a_range_exempts_nothing() -> None:
    finding = judge(http_proxy="http://proxy:3128", no_proxy="localhost,127.0.0.0/8")
    assert "export no_proxy=localhost,127.0.0.0/8,127.0.0.1" in (finding.remedy or "")


def test_a_proxy_for_https_alone_leaves_the_api_on_loopback_alone() -> None:
    assert judge(HTTPS_PROXY="http://proxy:3128").status is CheckStatus.PASS


@pytest.mark.parametrize(
    "value", ["http://proxy:port", "ftp://proxy:3128", "http://proxy/path", "http://me:hun/ter2@proxy:3128", "http://"]
)
def test_a_malformed_value_warns_and_is_not_shown(value: str) -> None:
    finding = judge(HTTPS_PROXY=value)
    assert finding.status is CheckStatus.WARN
    assert finding.observed.startswith("HTTPS_PROXY malformed (not shown")
    assert "`export HTTPS_PROXY=http://proxy.example:3128`" in (finding.remedy or "")
    assert "hun" not in repr(finding)


def test_a_proxy_without_a_scheme_is_an_http_proxy() -> None:
    assert find("https://host", HTTPS_PROXY="proxy:3128") == "http://proxy:3128"


def test_socks_needs_a_package() -> None:
    proxies = read_proxies({"HTTPS_PROXY": "socks5://proxy:1080"})
    assert judge_proxy(ProxySettings(proxies.settings, can_socks=True)).status is CheckStatus.PASS
    finding = judge_proxy(ProxySettings(proxies.settings, can_socks=False))
    assert finding.status is CheckStatus.WARN
    assert "pip install socksio" in (finding.remedy or "")


def test_which_proxy_is_asked() -> None:
    upper = {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1", "ALL_PROXY": "http://c:1"}
    assert find("http://host", **upper) == "http://a:1"
    assert find("https://host", **upper) == "http://b:1"
    assert find("https://host", **upper, https_proxy="http://lower:1") == "http://lower:1"
    assert find("https://host", ALL_PROXY="http://c:1") == "http://c:1"
    assert find("https://host") is None
    assert find("https://www.host.example", **upper, NO_PROXY="host.example") is None
    assert find("https://otherhost.example", **upper, NO_PROXY="host.example") == "http://b:1"


secrets = st.text(st.characters(min_codepoint=33, max_codepoint=126)).map(lambda end: f"s3cr3t{end}")


@given(secret=secrets, scheme=st.sampled_from(["http://", "https://", "socks5://", "ftp://", ""]))
def test_no_password_is_ever_shown(secret: str, scheme: str) -> None:
    value = f"{scheme}user:{secret}@proxy:3128"
    finding = judge(HTTP_PROXY=value, HTTPS_PROXY=value, ALL_PROXY=value)
    assert "s3cr3t" not in f"{finding!r} {read_proxies({'HTTP_PROXY': value})!r}"
