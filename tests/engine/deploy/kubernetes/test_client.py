"""Requests to a cluster, and the sentences for those that fail."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.kubernetes import (
    ClusterConfigError,
    ClusterRequestError,
    Connection,
    KubernetesClient,
    client,
    find_connection,
    open_client,
    read_discovery,
)
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster
from tests.fakes import wait_until


def open_at(server: str, folder: Path, user: dict[str, Any] | None = None) -> KubernetesClient:
    """A client for whatever is at `server`."""
    fake = FakeCluster()
    fake.server = server
    return open_client(find_connection({"KUBECONFIG": str(fake.write_kubeconfig(folder, user))}, folder))


def write_program(folder: Path, text: str) -> dict[str, Any]:
    """The user of a kubeconfig whose credentials come from a shell script."""
    program = folder / "login"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(program), "interactiveMode": "Never"}
    }


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port whose queue of connections is full, so that a further one gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(server.getsockname())
        try:
            yield server.getsockname()[1]
        finally:
            for caller in callers:
                caller.close()


def test_get_and_post(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.token = "secret"
    fake.answers["/api/v1/things"] = {"items": [1]}
    assert fake_client.get("/api/v1/things", {"limit": 3, "labelSelector": "a=b,c"}) == {"items": [1]}
    assert fake.queries[-1] == ("/api/v1/things", {"limit": ["3"], "labelSelector": ["a=b,c"]})
    assert fake_client.post("/api/v1/things", {"a": 1}) == {"items": [1]}
    assert fake_client.token == "secret"
    assert fake_client.server == fake.server


@pytest.mark.parametrize(
    ("status", "message", "remedy"),
    [
        (401, "does not accept the credentials in the kubeconfig", "Sign in to the cluster again"),
        (403, "forbids it: no /version for you", "administrator"),
        (500, "answered 500: no /version for you", "log"),
        (302, "answered 302", "log"),
    ],
)
def test_a_refusal(status: int, message: str, remedy: str, fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.statuses["/version"] = status
    with pytest.raises(ClusterRequestError, match=message) as caught:
        fake_client.get("/version")
    assert caught.value.http_status == status
    assert remedy in caught.value.remedy


def test_an_answer_that_is_no_json(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.answers["/version"] = b"<html>sign in</html>"
    with pytest.raises(ClusterRequestError, match="did not answer with JSON") as caught:
        fake_client.get("/version")
    assert "sign-in page" in caught.value.remedy


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began_s = time.perf_counter()
    with pytest.raises(ClusterRequestError, match=rf"nothing listens at http://127.0.0.1:{port}: .*refused") as caught:
        open_at(f"http://127.0.0.1:{port}", tmp_path).get("/version")
    assert time.perf_counter() - began_s < 1.9  # a try to connect is given 2 s
    assert caught.value.http_status is None
    assert "use-context NAME (now fake)" in caught.value.remedy


def test_no_way_there(tmp_path: Path) -> None:
    with pytest.raises(ClusterRequestError, match=r"http://255\.255\.255\.255:1 cannot be reached: ") as caught:
        open_at("http://255.255.255.255:1", tmp_path).get("/version")
    assert "VPN" in caught.value.remedy


def test_no_connection_within_two_seconds(tmp_path: Path) -> None:
    with deaf_port() as port:
        opened = open_at(f"http://127.0.0.1:{port}", tmp_path)
        began_s = time.perf_counter()
        with pytest.raises(ClusterRequestError, match="did not take a connection within 2 s") as caught:
            opened.get("/version")
    assert time.perf_counter() - began_s < 10
    assert "firewall" in caught.value.remedy


def test_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_TIMEOUT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(ClusterRequestError, match=r"took the request and did not answer within 0\.2 s") as caught,
    ):
        open_at(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path).get("/version")
    assert "etcd" in caught.value.remedy


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    with pytest.raises(ClusterRequestError, match="cannot be resolved") as caught:
        open_at("http://no-such-cluster.invalid:6443", tmp_path).get("/version")
    assert "VPN" in caught.value.remedy


def test_no_tls_at_the_other_end(fake: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(ClusterRequestError, match=r"the TLS connection to https://.* failed") as caught:
        open_at(fake.server.replace("http", "https"), tmp_path).get("/version")
    assert "certificate authority" in caught.value.remedy


def test_a_connection_that_ends_early(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        opened = open_at(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        server.settimeout(5)

        def hang_up() -> None:
            taken, _ = server.accept()
            taken.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(ClusterRequestError, match="cannot be asked"):
            opened.get("/version")
        thread.join(5)


def test_credentials_from_a_program(fake: FakeCluster, tmp_path: Path) -> None:
    fake.token = "from-program"
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "from-program"},
    }
    opened = open_at(fake.server, tmp_path, write_program(tmp_path, f"echo '{json.dumps(credential)}'"))
    assert opened.get("/version")["gitVersion"] == "v1.36.1"
    fake.token = "another"
    with pytest.raises(ClusterRequestError, match=rf"does not accept the credentials from {tmp_path}/login"):
        opened.get("/version")


def test_a_program_that_gives_no_credentials(fake: FakeCluster, tmp_path: Path) -> None:
    handlers = list(logging.getLogger().handlers)
    program = write_program(tmp_path, "echo your session is over >&2; exit 3")
    with pytest.raises(
        ClusterConfigError, match=r"login gave no credentials for context 'fake': .*session is over"
    ) as caught:
        open_at(fake.server, tmp_path, program)
    assert "kubectl get --raw /version" in caught.value.remedy
    assert logging.getLogger().handlers == handlers


def test_no_secret_of_the_kubeconfig_is_told(fake: FakeCluster, tmp_path: Path) -> None:
    sign_in = {"auth-provider": {"name": "oidc", "config": {"client-secret": "hunter2"}}}
    with pytest.raises(ClusterConfigError, match="id-token") as caught:
        open_at(fake.server, tmp_path, sign_in)
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_a_program_that_hangs_leaves_nothing_behind(
    fake: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither it nor what it started, nor a thread that waits for it, nor a handler among the logs."""
    monkeypatch.setattr(client, "CREDENTIALS_TIMEOUT_S", 0.3)
    handlers = list(logging.getLogger().handlers)
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    program = write_program(tmp_path, f"echo $$ >> {tmp_path}/pids; sleep 30 & echo $! >> {tmp_path}/pids; wait")
    for _ in range(2):
        with pytest.raises(ClusterConfigError, match=r"no credentials for context 'fake': .*no answer within 0\.3 s"):
            open_at(fake.server, tmp_path, program)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 4
    wait_until(lambda: not any(is_running(pid) for pid in pids))
    wait_until(lambda: threading.active_count() <= threads)
    assert len(os.listdir("/proc/self/fd")) <= files
    assert logging.getLogger().handlers == handlers


def is_running(pid: str) -> bool:
    """Not of a process that has ended and only waits for its parent to notice."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_a_sign_in_that_hangs_leaves_no_handler_behind(
    fake: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the library does itself, so that its thread cannot be ended."""
    released = threading.Event()
    monkeypatch.setattr(client, "CREDENTIALS_TIMEOUT_S", 0.1)
    monkeypatch.setattr(client, "_MARGIN_S", 0.1)
    monkeypatch.setattr(client, "_load_context", lambda *_: released.wait(20))
    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ClusterConfigError, match=r"the sign-in of the context gave no credentials .* within 0\.2 s"):
        open_at(fake.server, tmp_path)
    assert logging.getLogger().handlers == handlers
    released.set()


def test_the_kubeconfig_of_a_program_is_not_changed(fake: FakeCluster, tmp_path: Path) -> None:
    program = write_program(tmp_path, "exit 1")
    before = fake.write_kubeconfig(tmp_path, program).read_text()
    with pytest.raises(ClusterConfigError):
        open_client(find_connection({"KUBECONFIG": str(tmp_path / "kubeconfig")}, tmp_path))
    assert (tmp_path / "kubeconfig").read_text() == before


def test_a_client_that_nobody_holds_closes_its_connections(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        opened = open_at(f"http://127.0.0.1:{server.getsockname()[1]}", tmp_path)
        answers: list[Any] = []
        thread = threading.Thread(target=lambda held: answers.append(held.get("/version")), args=(opened,))
        thread.start()
        taken, _ = server.accept()
        with taken:
            taken.settimeout(5)
            taken.recv(65_536)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            thread.join(5)
            assert answers == [{}]
            del opened, thread
            gc.collect()
            assert taken.recv(1) == b""


def test_certificate_data_that_is_none(fake: FakeCluster, tmp_path: Path) -> None:
    user = {"client-certificate-data": "%%%", "client-key-data": "%%%"}
    with pytest.raises((ClusterConfigError, ClusterRequestError)) as caught:
        open_at(fake.server.replace("http", "https"), tmp_path, user).get("/version")
    assert caught.value.remedy


def test_a_pod_whose_account_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ClusterConfigError, match="the pod's service account cannot be used: Service host/port"):
        open_client(Connection("in-cluster"))


@pytest.mark.kubernetes
def test_a_real_cluster(real_client: KubernetesClient) -> None:
    discovery = read_discovery(real_client)
    assert re.match(r"v1\.\d+", discovery.version)
    assert discovery.has("apps", "v1")


@pytest.mark.kubernetes
def test_a_real_cluster_behind_another_authority(real_client: KubernetesClient, tmp_path: Path) -> None:
    server = real_client.server
    with pytest.raises(ClusterRequestError, match=r"the TLS connection .* failed: .*certificate verify failed"):
        open_at(server, tmp_path).get("/version")


@pytest.mark.kubernetes
def test_a_real_cluster_refuses_a_stale_token(real_client: KubernetesClient, tmp_path: Path) -> None:
    import yaml

    document = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    for user in document["users"]:
        user["user"] = {"token": "stale"}
    (tmp_path / "stale").write_text(json.dumps(document))
    opened = open_client(find_connection({"KUBECONFIG": str(tmp_path / "stale")}))
    with pytest.raises(ClusterRequestError, match="does not accept the credentials") as caught:
        opened.get("/version")
    assert caught.value.http_status == 401


@pytest.mark.kubernetes
def test_a_real_cluster_from_within(
    real_client: KubernetesClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of a pod's service account are made here, as a pod of a one-node cluster may not reach its server."""
    from kubernetes.config import incluster_config

    if real_client.token is None:
        pytest.skip("the kubeconfig's user has no token")
    (tmp_path / "token").write_text(real_client.token)
    authority = real_client._api.configuration.ssl_ca_cert
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", authority)
    host, _, port = real_client.server.removeprefix("https://").rpartition(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    pod = {"KUBERNETES_SERVICE_HOST": host}
    opened = open_client(find_connection(pod, tmp_path, tmp_path))
    assert read_discovery(opened).has("apps", "v1")
