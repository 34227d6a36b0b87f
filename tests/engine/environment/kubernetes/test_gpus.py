"""GPUs that pods can have."""

from __future__ import annotations

from typing import Any

import pytest

from engine.environment.check import CheckStatus
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster, node
from tests.engine.environment.kubernetes.conftest import Run
from tests.engine.environment.kubernetes.test_nodes import gpus, have


def test_gpus_are_there(run: Run, fake: FakeCluster) -> None:
    have(fake, node(), gpus(8))
    found = run(gpus=4)["gpus"]
    assert (found.status, found.observed) == (CheckStatus.PASS, "8 GPUs in the cluster, at most 8 on one node")


@pytest.mark.parametrize(
    ("profile", "status"),
    [({}, CheckStatus.SKIP), ({"gpus": 1}, CheckStatus.FAIL), ({"gpus": {"recommend": 1}}, CheckStatus.WARN)],
)
def test_no_gpus(profile: dict[str, Any], status: CheckStatus, run: Run, fake: FakeCluster) -> None:
    found = run(**profile)["gpus"]
    assert found.status is status
    assert "no node offers nvidia.com/gpu" in found.observed
    assert status is CheckStatus.SKIP or "helm install gpu-operator" in (found.remedy or "")


def test_too_few_gpus_on_one_node(run: Run, fake: FakeCluster) -> None:
    have(fake, gpus(2))
    found = run(gpus=4)["gpus"]
    assert found.status is CheckStatus.FAIL
    assert found.remedy == "Add a node with GPUs: at least 4."


@pytest.mark.parametrize(("profile", "status"), [({}, CheckStatus.WARN), ({"gpus": 1}, CheckStatus.FAIL)])
def test_a_gpu_that_no_pod_can_have(profile: dict[str, Any], status: CheckStatus, run: Run, fake: FakeCluster) -> None:
    have(fake, node("b", labels={"feature.node.kubernetes.io/pci-10de.present": "true"}))
    found = run(**profile)["gpus"]
    assert found.status is status
    assert "b: an NVIDIA device is in the machine" in found.observed
    assert "helm install gpu-operator" in (found.remedy or "")


def test_an_unhealthy_gpu(run: Run, fake: FakeCluster) -> None:
    have(fake, gpus(7, capacity={"nvidia.com/gpu": "8"}))
    found = run(gpus=4)["gpus"]
    assert found.status is CheckStatus.WARN
    assert found.observed == "gpu-1: 7 of 8 GPUs are healthy"
    assert "nvidia-smi" in (found.remedy or "")
