"""A run of the family's checks, against the fake cluster or whatever a test names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.environment.check import CheckResult, run_checks
from engine.environment.context import CheckContext
from engine.environment.kubernetes import kubernetes_checks
from engine.environment.profile import KubernetesProfile, Profile
from engine.telemetry.nvml import Nvml
from tests.engine.deploy.kubernetes.conftest import real_client, real_namespace
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster, node, serve_fake_cluster

__all__ = ["Run", "fake", "real_client", "real_namespace", "run"]

Run = Callable[..., dict[str, CheckResult]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the checks on whatever $KUBECONFIG names; keyword arguments are the profile's. By name, without family."""

    def run(**profile: Any) -> dict[str, CheckResult]:
        asked = Profile(title="test", kubernetes=KubernetesProfile.model_validate(profile))
        checks = kubernetes_checks(CheckContext(asked, tmp_path, Nvml()))
        return {result.id.removeprefix("kubernetes."): result for result in run_checks(checks)}

    return run


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster in order, which $KUBECONFIG names."""
    with serve_fake_cluster() as cluster:
        cluster.answers["/api/v1/namespaces/default"] = {"status": {"phase": "Active"}}
        cluster.answers["/api/v1/nodes"] = {"items": [node()]}
        cluster.answers["/api/v1/pods"] = {"items": []}
        monkeypatch.setenv("KUBECONFIG", str(cluster.write_kubeconfig(tmp_path)))
        yield cluster
