"""Nodes, their room, and their GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from engine.environment.check import CheckStatus
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster, node
from tests.engine.environment.kubernetes.conftest import Run

TAINTED = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
GPU_TAINT = [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]


def have(fake: FakeCluster, *nodes: dict[str, Any]) -> None:
    fake.answers["/api/v1/nodes"] = {"items": list(nodes)}


def request(fake: FakeCluster, name: str, **requests: str) -> None:
    """A pod on node `name`."""
    spec = {"nodeName": name, "containers": [{"resources": {"requests": requests}}]}
    fake.answers["/api/v1/pods"]["items"].append({"spec": spec})


def gpus(number: int, **changes: Any) -> dict[str, Any]:
    return node("gpu-1", amounts={"nvidia.com/gpu": str(number)}, **changes)


def test_room_is_what_pods_leave(run: Run, fake: FakeCluster) -> None:
    request(fake, "a", cpu="2500m", memory="2Gi")
    nodes = run(cpus=5, memory_gb=32)["nodes"]
    assert nodes.status is CheckStatus.PASS
    assert nodes.observed == "1 of 1 nodes ready; a: free 5.5 of 8 CPUs, 32.2 of 34.4 GB, 0 of 0 GPUs"
    assert nodes.facts == {
        "nodes": 1,
        "nodes_ready": 1,
        "nodes_usable": 1,
        "allocatable_cpus": 8.0,
        "allocatable_memory_bytes": 32 * 2**30,
        "allocatable_gpus": 0,
    }


def test_a_full_node_is_to_be_emptied(run: Run, fake: FakeCluster) -> None:
    request(fake, "a", cpu="6")
    nodes = run(cpus=4)["nodes"]
    assert nodes.status is CheckStatus.FAIL
    assert (nodes.remedy or "").startswith("Free at least 4 CPUs (free 2) on a: scale down")
    assert "--field-selector spec.nodeName=a" in (nodes.remedy or "")


def test_a_small_node_needs_another_beside_it(run: Run, fake: FakeCluster) -> None:
    nodes = run(cpus={"require": 4, "recommend": 16}, memory_gb=64)["nodes"]
    assert nodes.status is CheckStatus.FAIL
    assert nodes.remedy == (
        "Add a node with at least 4 CPUs, better 16 CPUs (free 8), at least 64 GB of memory (free 34.36): "
        "a has too little even when empty."
    )


def test_recommended_room_is_a_warning(run: Run, fake: FakeCluster) -> None:
    assert run(cpus={"recommend": 16})["nodes"].status is CheckStatus.WARN


def test_all_is_asked_of_one_node(run: Run, fake: FakeCluster) -> None:
    big = {"cpu": "64", "memory": "8Gi"}
    have(fake, node("wide", amounts=big), node("tall", amounts={"cpu": "4", "memory": "256Gi"}))
    assert run(cpus=32, memory_gb=128)["nodes"].status is CheckStatus.FAIL
    have(fake, node("wide", amounts=big), node("both", amounts={"cpu": "64", "memory": "256Gi"}))
    assert run(cpus=32, memory_gb=128)["nodes"].status is CheckStatus.PASS


def test_gpus_in_use_are_not_free(run: Run, fake: FakeCluster) -> None:
    have(fake, node(), gpus(2, taints=GPU_TAINT))
    assert run(gpus=2)["nodes"].status is CheckStatus.PASS
    request(fake, "gpu-1", **{"nvidia.com/gpu": "1"})
    nodes = run(gpus=2)["nodes"]
    assert nodes.status is CheckStatus.FAIL
    assert "gpu-1 (tainted nvidia.com/gpu): free 8 of 8 CPUs, 34.4 of 34.4 GB, 1 of 2 GPUs" in nodes.observed
    assert "Free at least 2 GPUs (free 1) on gpu-1" in (nodes.remedy or "")


@pytest.mark.parametrize(
    ("changes", "trouble", "remedy"),
    [
        ({"ready": False}, "(not ready)", "kubectl describe node b"),
        ({"unschedulable": True}, "(cordoned)", "kubectl uncordon b"),
        ({"taints": TAINTED}, "(tainted node-role", "kubectl taint node b node-role.kubernetes.io/control-plane-"),
    ],
)
@pytest.mark.parametrize(("required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
def test_no_node_takes_pods(
    changes: dict[str, Any], trouble: str, remedy: str, required: bool, status: CheckStatus, run: Run, fake: FakeCluster
) -> None:
    have(fake, node("b", **changes))
    nodes = run(required=required)["nodes"]
    assert nodes.status is status
    assert trouble in nodes.observed
    assert "none takes pods" in nodes.observed
    assert remedy in (nodes.remedy or "")


def test_a_broken_node_beside_a_good_one_is_a_warning(run: Run, fake: FakeCluster) -> None:
    have(fake, node("a"), node("b", ready=False))
    nodes = run(required=True)["nodes"]
    assert nodes.status is CheckStatus.WARN
    assert "1 of 2 nodes ready" in nodes.observed
    assert "kubectl describe node b" in (nodes.remedy or "")


def test_pressure_is_a_warning(run: Run, fake: FakeCluster) -> None:
    have(fake, node("a", conditions=[{"type": "DiskPressure", "status": "True"}]))
    nodes = run(required=True)["nodes"]
    assert nodes.status is CheckStatus.WARN
    assert "a (DiskPressure)" in nodes.observed


def test_a_cordoned_node_beside_a_good_one_is_only_told(run: Run, fake: FakeCluster) -> None:
    have(fake, node("a"), node("b", unschedulable=True))
    nodes = run(required=True)["nodes"]
    assert nodes.status is CheckStatus.PASS
    assert "b (cordoned)" in nodes.observed


def test_no_nodes(run: Run, fake: FakeCluster) -> None:
    have(fake)
    nodes = run(required=True)["nodes"]
    assert (nodes.status, nodes.observed) == (CheckStatus.FAIL, "the cluster has no nodes")


def test_five_nodes_are_shown(run: Run, fake: FakeCluster) -> None:
    have(fake, *(node(f"n{number}") for number in range(8)))
    assert run()["nodes"].observed.endswith("; 3 more")


def test_pods_that_may_not_be_listed(run: Run, fake: FakeCluster) -> None:
    fake.statuses["/api/v1/pods"] = 403
    nodes = run(cpus=8)["nodes"]
    assert nodes.status is CheckStatus.PASS
    assert "what pods request is not known" in nodes.observed


@pytest.mark.parametrize(("profile", "status"), [({}, CheckStatus.SKIP), ({"cpus": 1}, CheckStatus.WARN)])
def test_nodes_that_may_not_be_listed(
    profile: dict[str, Any], status: CheckStatus, run: Run, fake: FakeCluster
) -> None:
    fake.statuses["/api/v1/nodes"] = 403
    results = run(**profile)
    assert results["nodes"].status is status
    assert "jane may not list nodes" in results["nodes"].observed
    assert results["gpus"].status is CheckStatus.SKIP
    if status is CheckStatus.WARN:
        assert "--clusterrole=autoglm-console-nodes --user=jane" in (results["nodes"].remedy or "")


@pytest.mark.kubernetes
def test_a_real_cluster_without_gpus(run: Run) -> None:
    results = run(gpus=1, cpus=0.1)
    if results["gpus"].facts["gpus"]:
        pytest.skip("the cluster has GPUs")
    assert results["gpus"].status is CheckStatus.FAIL
    assert results["nodes"].status is CheckStatus.FAIL
    assert "Add a node with at least 1 GPUs" in (results["nodes"].remedy or "")
