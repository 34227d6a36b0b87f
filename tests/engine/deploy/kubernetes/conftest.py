"""Clusters for tests: a fake one, and the real one of $KUBECONFIG."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.deploy.kubernetes import KubernetesClient, find_connection, open_client
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster, serve_fake_cluster


@pytest.fixture
def fake() -> Iterator[FakeCluster]:
    with serve_fake_cluster() as cluster:
        yield cluster


@pytest.fixture
def fake_client(fake: FakeCluster, tmp_path: Path) -> KubernetesClient:
    """A client of the fake cluster."""
    return open_client(find_connection({"KUBECONFIG": str(fake.write_kubeconfig(tmp_path))}, tmp_path))


@pytest.fixture
def real_client() -> KubernetesClient:
    """A client of the real cluster, for tests marked `kubernetes`."""
    return open_client(find_connection(os.environ))


@pytest.fixture
def real_namespace(real_client: KubernetesClient) -> Iterator[str]:
    """A namespace of the real cluster for one test, deleted after it."""
    name = f"console-test-{time.time_ns():x}"
    real_client.post("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    real_client.request("DELETE", f"/api/v1/namespaces/{name}")
