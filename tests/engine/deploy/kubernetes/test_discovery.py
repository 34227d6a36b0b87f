"""Version and API groups."""

from __future__ import annotations

import pytest

from engine.deploy.kubernetes import (
    ClusterRequestError,
    KubernetesClient,
    read_discovery,
    read_namespace_phase,
    read_resources,
)
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster


@pytest.mark.parametrize(
    ("version", "minor"), [("v1.20.2", 20), ("v1.36.0-eks-1234", 36), ("v1.31.5+k3s1", 31), ("", None), ("v2.0", None)]
)
def test_version(version: str, minor: int | None, fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.answers["/version"] = {"gitVersion": version}
    assert read_discovery(fake_client).minor == minor


def test_the_preferred_version_comes_first(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.add_group("gateway.networking.k8s.io", "v1beta1", "v1")
    discovery = read_discovery(fake_client)
    assert discovery.groups["gateway.networking.k8s.io"] == ("v1", "v1beta1")
    assert discovery.has("gateway.networking.k8s.io", "v1beta1")
    assert not discovery.has("metrics.k8s.io", "v1beta1")


def test_resources_of_an_api(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.add_group("metrics.k8s.io", "v1beta1", resources=("pods", "nodes"))
    fake.add_group("broken.example.org", "v1", resources=None)
    assert read_resources(fake_client, "metrics.k8s.io", "v1beta1") == frozenset({"pods", "nodes"})
    assert read_resources(fake_client, "broken.example.org", "v1") is None
    assert read_resources(fake_client, "absent.example.org", "v1") is None
    fake.statuses["/apis/metrics.k8s.io/v1beta1"] = 403
    with pytest.raises(ClusterRequestError):
        read_resources(fake_client, "metrics.k8s.io", "v1beta1")


def test_namespace_phase(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.answers["/api/v1/namespaces/models"] = {"status": {"phase": "Terminating"}}
    assert read_namespace_phase(fake_client, "models") == "Terminating"
    assert read_namespace_phase(fake_client, "absent") is None
    fake.statuses["/api/v1/namespaces/secret"] = 403
    with pytest.raises(ClusterRequestError):
        read_namespace_phase(fake_client, "secret")


@pytest.mark.kubernetes
def test_a_real_cluster(real_client: KubernetesClient) -> None:
    assert read_namespace_phase(real_client, "default") == "Active"
    assert read_namespace_phase(real_client, "no-such-namespace") is None
    resources = read_resources(real_client, "apps", "v1")
    assert resources is not None
    assert {"deployments", "deployments/scale", "replicasets"} <= resources
