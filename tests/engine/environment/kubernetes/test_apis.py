"""The metrics API and the Gateway API."""

from __future__ import annotations

import pytest

from engine.deploy.kubernetes import KubernetesClient
from engine.environment.check import CheckStatus
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster
from tests.engine.environment.kubernetes.conftest import Run
from tests.fakes import wait_until

METRICS = "metrics.k8s.io"
GATEWAY = "gateway.networking.k8s.io"


def test_metrics_answer(run: Run, fake: FakeCluster) -> None:
    fake.add_group(METRICS, "v1beta1", resources=("nodes", "pods"))
    metrics = run()["metrics"]
    assert (metrics.status, metrics.observed) == (CheckStatus.PASS, "metrics.k8s.io/v1beta1 answers")


def test_metrics_are_absent(run: Run, fake: FakeCluster) -> None:
    metrics = run(required=True)["metrics"]
    assert metrics.status is CheckStatus.WARN
    assert "kubectl apply -f https://github.com/kubernetes-sigs/metrics-server" in (metrics.remedy or "")


@pytest.mark.parametrize("resources", [None, ("nodes",)])
def test_metrics_are_registered_and_dead(resources: tuple[str, ...] | None, run: Run, fake: FakeCluster) -> None:
    fake.add_group(METRICS, "v1beta1", resources=resources)
    metrics = run()["metrics"]
    assert metrics.status is CheckStatus.WARN
    assert "is registered, and what serves it" in metrics.observed
    assert "kubectl describe apiservice v1beta1.metrics.k8s.io" in (metrics.remedy or "")


def test_gateway_is_an_option(run: Run, fake: FakeCluster) -> None:
    gateway = run(required=True)["gateway"]
    assert gateway.status is CheckStatus.SKIP
    assert "by their number of replicas" in gateway.observed


def test_gateway_is_there(run: Run, fake: FakeCluster) -> None:
    fake.add_group(GATEWAY, "v1beta1", "v1", resources=("gateways", "httproutes"))
    gateway = run()["gateway"]
    assert gateway.status is CheckStatus.PASS
    assert gateway.observed == "gateway.networking.k8s.io v1, v1beta1 with httproutes"
    assert gateway.facts == {"versions": "v1 v1beta1"}


def test_gateway_is_there_by_half(run: Run, fake: FakeCluster) -> None:
    fake.add_group(GATEWAY, "v1", resources=("gateways",))
    gateway = run()["gateway"]
    assert gateway.status is CheckStatus.WARN
    assert "standard-install.yaml" in (gateway.remedy or "")


@pytest.mark.kubernetes
def test_metrics_that_a_real_cluster_has_lost(run: Run, real_client: KubernetesClient) -> None:
    """Register the API with nothing behind it, as a crashed metrics-server leaves it."""
    if any(group["name"] == METRICS for group in real_client.get("/apis")["groups"]):
        pytest.skip("the cluster has a metrics API, which this test would disturb")
    path = "/apis/apiregistration.k8s.io/v1/apiservices"
    spec = {
        "group": METRICS,
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "no-such-service", "namespace": "default"},
    }
    real_client.post(path, {"metadata": {"name": f"v1beta1.{METRICS}"}, "spec": spec})
    try:
        wait_until(lambda: any(group["name"] == METRICS for group in real_client.get("/apis")["groups"]))
        metrics = run()["metrics"]
    finally:
        real_client.request("DELETE", f"{path}/v1beta1.{METRICS}")
    assert metrics.status is CheckStatus.WARN
    assert "is registered, and what serves it gives no pod metrics" in metrics.observed


@pytest.mark.kubernetes
def test_routes_of_a_real_cluster(run: Run, real_client: KubernetesClient) -> None:
    """Define HTTPRoute as the Gateway API's own definitions do, without a controller behind it."""
    if any(group["name"] == GATEWAY for group in real_client.get("/apis")["groups"]):
        pytest.skip("the cluster has the Gateway API, which this test would disturb")
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = f"httproutes.{GATEWAY}"
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "metadata": {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}},
        "spec": {
            "group": GATEWAY,
            "names": {
                "kind": "HTTPRoute",
                "listKind": "HTTPRouteList",
                "plural": "httproutes",
                "singular": "httproute",
            },
            "scope": "Namespaced",
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    assert run()["gateway"].status is CheckStatus.SKIP
    real_client.post(path, definition)
    try:
        wait_until(lambda: run()["gateway"].status is CheckStatus.PASS, 20)
        permissions = run(required=True)["permissions"]
    finally:
        real_client.request("DELETE", f"{path}/{name}")
    assert permissions.status is CheckStatus.PASS
    assert permissions.observed.startswith("all 48 verbs")
