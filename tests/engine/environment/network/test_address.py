from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.network.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://huggingface.co", "https://huggingface.co"),
        ("https://mirror.example:8443/hf/", "https://mirror.example:8443/hf"),
        ("http://user:secret@proxy:3128", "http://proxy:3128"),
        ("http://[::1]:5000", "http://[::1]:5000"),
        ("https://host/api?token=secret#secret", "https://host/api"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "huggingface.co",
        "https://",
        "http://host:port",
        "http://host:0",
        "http://host:70000",
        "http://a b",
        "http://host\n",
        "http://[::1",
        "http://user:12/34@proxy:3128",
        "http://user:12#34@proxy:3128",
        "http://user:12?34@proxy:3128",
    ],
)
def test_what_is_malformed(text: str) -> None:
    assert parse_address(text) is None


def test_a_scheme_may_be_given() -> None:
    assert parse_address("proxy:3128", "http") == Address("http", "proxy", 3128)


def test_credentials_are_decoded_and_kept_out_of_sight() -> None:
    address = parse_address("http://u%40x:p%2Fw@proxy")
    assert address is not None
    assert address.credentials == ("u@x", "p/w")
    assert "p/w" not in repr(address)
    assert address.effective_port == 80


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("localhost", True), ("127.0.0.9", True), ("[::1]", True), ("10.0.0.1", False), ("localhost.example", False)],
)
def test_loopback(host: str, is_loopback: bool) -> None:
    address = parse_address(f"http://{host}")
    assert address is not None
    assert address.is_loopback is is_loopback


@given(password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1).map(lambda end: f"s3cr3t{end}"))
def test_no_character_of_a_password_makes_it_show(password: str) -> None:
    address = parse_address(f"http://user:{password}@proxy:3128")
    assert address is None or "s3cr3t" not in f"{address} {address!r} {address.netloc}"
