from __future__ import annotations

import base64
import socket
import threading
import time
from pathlib import Path

import pytest

from engine.environment.network.address import Address
from engine.environment.network.probe import Answer, Trouble, probe
from tests.engine.environment.network.servers import free_port, make_certificate, serve


def local(port: int, scheme: str = "http", path: str = "/x") -> Address:
    return Address(scheme, "127.0.0.1", port, path)


def test_an_answer_has_status_type_and_latency() -> None:
    with serve(404, "text/html") as server:
        answer = probe(local(server.port))
    assert (answer.status, answer.trouble, answer.content_type) == (404, None, "text/html")
    assert answer.latency_s is not None
    assert 0 < answer.latency_s < 10
    assert server.seen == [("GET", "/x", None)]


def test_a_port_nobody_listens_at_refuses() -> None:
    assert probe(local(free_port())).trouble is Trouble.REFUSED


def test_a_name_that_does_not_exist() -> None:
    answer = probe(Address("http", "no-such-host.invalid"), timeout_s=5)
    assert answer.trouble in (Trouble.NAME, Trouble.TIMEOUT)


def test_a_server_that_hangs_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started_s = time.monotonic()
        answer = probe(local(silent.getsockname()[1]), timeout_s=0.3)
    assert answer.trouble is Trouble.TIMEOUT
    assert time.monotonic() - started_s < 10


def test_a_name_that_hangs_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*arguments: object, **options: object) -> object:
        release.wait(20)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    started_s = time.monotonic()
    answer = probe(Address("http", "slow.example"), timeout_s=0.2)
    release.set()
    assert answer == Answer(trouble=Trouble.TIMEOUT, detail="no answer within 0.2 s")
    assert time.monotonic() - started_s < 10


def test_no_http_at_all() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=talk)
        thread.start()
        answer = probe(local(server.getsockname()[1]))
        thread.join()
    assert (answer.trouble, answer.detail) == (Trouble.OTHER, "BadStatusLine")


def test_a_certificate_that_nobody_vouches_for(tmp_path: Path) -> None:
    context, _ = make_certificate(tmp_path)
    with serve(tls=context) as server:
        answer = probe(local(server.port, "https"))
    assert answer.trouble is Trouble.TLS
    assert "self-signed certificate" in answer.detail.replace("self signed", "self-signed")


def test_tls_to_a_server_without_it() -> None:
    with serve() as server:
        answer = probe(local(server.port, "https"))
    assert answer.trouble is Trouble.TLS
    assert answer.detail in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")


def test_a_trusted_certificate_through_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, certificate = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serve(tls=context) as server, serve(connect_status=200) as proxy:
        answer = probe(local(server.port, "https"), local(proxy.port))
        assert (answer.status, answer.trouble) == (200, None)
        assert proxy.seen == [("CONNECT", f"127.0.0.1:{server.port}", None)]
        assert server.seen == [("GET", "/x", None)]


@pytest.mark.parametrize(("status", "detail"), [(403, "403 Forbidden"), (407, "407 Proxy Authentication Required")])
def test_a_proxy_that_refuses_a_tunnel(status: int, detail: str) -> None:
    with serve(connect_status=status) as proxy:
        answer = probe(Address("https", "hub.invalid"), local(proxy.port))
    assert (answer.trouble, answer.detail) == (Trouble.PROXY, detail)


def test_plain_http_goes_through_a_proxy_with_its_password() -> None:
    with serve() as server:
        proxy = Address("http", "127.0.0.1", server.port, credentials=("me", "p/w"))
        answer = probe(Address("http", "hub.invalid", 8080, "/x"), proxy)
    token = base64.b64encode(b"me:p/w").decode()
    assert answer.status == 200
    assert server.seen == [("GET", "http://hub.invalid:8080/x", f"Basic {token}")]


def test_a_proxy_that_wants_a_sign_in_for_plain_http() -> None:
    with serve(407) as proxy:
        answer = probe(Address("http", "hub.invalid"), local(proxy.port))
    assert answer.trouble is Trouble.PROXY


def test_a_kind_of_proxy_it_does_not_speak_to() -> None:
    answer = probe(Address("https", "hub.invalid"), Address("socks5", "127.0.0.1", 1080))
    assert (answer.trouble, "socks5" in answer.detail) == (Trouble.UNTRIED, True)
