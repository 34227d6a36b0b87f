"""Nodes and what is asked of them."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.kubernetes import ClusterRequestError, KubernetesClient, Resources, read_nodes, read_requests
from engine.deploy.kubernetes import nodes as nodes_module
from engine.deploy.kubernetes.nodes import parse_node, parse_pod_requests
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster, node
from tests.fakes import wait_until


def container(cpu: str = "0", memory: str = "0", gpus: int = 0, **rest: Any) -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": memory, "nvidia.com/gpu": str(gpus)}
    return {"resources": {"requests": requests}, **rest}


def test_node() -> None:
    parsed = parse_node(
        node(
            "gpu-1",
            amounts={"cpu": "7910m", "memory": "24581256Ki", "nvidia.com/gpu": "7", "pods": "110"},
            capacity={"nvidia.com/gpu": "8"},
            labels={"nvidia.com/gpu.present": "true"},
            conditions=[{"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}],
            taints=[{"key": "nvidia.com/gpu", "effect": "NoSchedule"}, {"key": "soft", "effect": "PreferNoSchedule"}],
            unschedulable=True,
        )
    )
    assert parsed.allocatable == Resources(7.91, 25171206144, 7)
    assert (parsed.gpus_capacity, parsed.has_gpu_label, parsed.pressures) == (8, True, ("DiskPressure",))
    assert (parsed.taints, parsed.is_cordoned, parsed.is_ready) == (("nvidia.com/gpu",), True, True)


def test_a_node_that_has_reported_nothing_yet() -> None:
    parsed = parse_node({"metadata": {"name": "new"}})
    assert (parsed.is_ready, parsed.allocatable) == (False, Resources())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, Resources()),
        ({"containers": [{}, container("500m", "1Gi")]}, Resources(0.5, 2**30)),
        ({"containers": [container("1", "1Ki"), container("250m", "1Ki", 2)]}, Resources(1.25, 2048, 2)),
        ({"containers": [container("1")], "initContainers": [container("3")]}, Resources(3)),
        ({"containers": [container("4")], "initContainers": [container("3")]}, Resources(4)),
        ({"containers": [container("1")], "overhead": {"cpu": "250m"}}, Resources(1.25)),
        (
            {
                "containers": [container("1")],
                "initContainers": [container("1", restartPolicy="Always"), container("2")],
            },
            Resources(3),
        ),
        (
            {
                "containers": [container("5")],
                "initContainers": [container("2"), container("1", restartPolicy="Always")],
            },
            Resources(6),
        ),
        (
            {"containers": [container("1", "1Ki", 1)], "resources": {"requests": {"cpu": "3"}}},
            Resources(3, 1024, 1),
        ),
    ],
)
def test_pod_requests(spec: dict[str, Any], expected: Resources) -> None:
    assert parse_pod_requests(spec) == expected


@given(st.lists(st.integers(0, 64_000), max_size=5), st.lists(st.integers(0, 64_000), max_size=5))
def test_a_pod_counts_its_sum_or_its_largest_start(running: list[int], starting: list[int]) -> None:
    spec = {
        "containers": [container(f"{milli}m") for milli in running],
        "initContainers": [container(f"{milli}m") for milli in starting],
    }
    expected = max([sum(running), *starting]) / 1000
    assert parse_pod_requests(spec).cpus == pytest.approx(expected)


def test_nodes_come_in_pages(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.answers["/api/v1/nodes"] = [
        {"metadata": {"continue": "1"}, "items": [node("b")]},
        {"metadata": {}, "items": [node("a")]},
    ]
    assert [found.name for found in read_nodes(fake_client)] == ["a", "b"]


def test_requests_by_node(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    pods = [("a", "1"), ("a", "2"), ("b", "4")]
    items = [{"spec": {"nodeName": name, "containers": [container(cpu)]}} for name, cpu in pods]
    fake.answers["/api/v1/pods"] = {"items": items}
    assert read_requests(fake_client) == {"a": Resources(3), "b": Resources(4)}
    selector = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
    assert fake.queries[-1][1] == {"fieldSelector": [selector], "limit": ["500"]}


def test_too_many_pods_are_not_counted(
    fake: FakeCluster, fake_client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "MAX_PODS", 2)
    pod = {"spec": {"nodeName": "a", "containers": []}}
    fake.answers["/api/v1/pods"] = {"items": [pod] * 2}
    assert read_requests(fake_client) == {"a": Resources()}
    fake.answers["/api/v1/pods"] = {"items": [pod] * 3}
    assert read_requests(fake_client) is None


def _pages(path: str, item: Any, fake: FakeCluster) -> None:
    """Six pages that take 0.2 s each."""
    fake.answers[path] = [{"metadata": {"continue": str(number)}, "items": [item]} for number in range(1, 6)]
    fake.answers[path].append({"items": [item]})
    fake.delays_s[path] = 0.2


def test_the_pages_of_a_list_share_one_time_limit(
    fake: FakeCluster, fake_client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes_module, "LISTING_LIMIT_S", 0.5)
    _pages("/api/v1/nodes", node(), fake)
    _pages("/api/v1/pods", {"spec": {"nodeName": "a", "containers": []}}, fake)
    began_s = time.monotonic()
    with pytest.raises(
        ClusterRequestError, match=r"/api/v1/nodes did not end its list|did not answer within"
    ) as caught:
        read_nodes(fake_client)
    assert "etcd" in caught.value.remedy
    assert read_requests(fake_client) is None
    assert time.monotonic() - began_s < 2.2  # without the limit 2.4 s


@pytest.mark.kubernetes
def test_a_real_cluster(real_client: KubernetesClient) -> None:
    found = read_nodes(real_client)
    assert found
    assert all(one.allocatable.cpus >= 1 and one.allocatable.memory_bytes > 2**28 for one in found)
    requests = read_requests(real_client)
    assert requests is not None
    assert set(requests) <= {one.name for one in found}


@pytest.mark.kubernetes
def test_a_real_pods_request_is_counted(real_client: KubernetesClient, real_namespace: str) -> None:
    """Scheduled is enough: the image need not exist."""
    before = read_requests(real_client) or {}
    containers = [{"name": "c", "image": "local/pause:1", "resources": {"requests": {"cpu": "150m", "memory": "3Mi"}}}]
    pod = {"metadata": {"name": "asks"}, "spec": {"containers": containers, "terminationGracePeriodSeconds": 0}}

    def is_created() -> bool:
        try:
            real_client.post(f"/api/v1/namespaces/{real_namespace}/pods", pod)
        except ClusterRequestError as error:
            if "service account" in str(error):  # the namespace's default account is made a moment after it
                return False
            raise
        return True

    def grown() -> Resources:
        after = read_requests(real_client) or {}
        return sum(after.values(), Resources()) - sum(before.values(), Resources())

    wait_until(is_created, 20)
    wait_until(lambda: grown().cpus > 0, 20)
    assert grown().cpus == pytest.approx(0.15)
    assert grown().memory_bytes == 3 * 2**20
