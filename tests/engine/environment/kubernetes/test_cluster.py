"""Is there a cluster, and of what version."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from engine.deploy.kubernetes import Discovery, access, nodes
from engine.environment.check import CheckStatus
from engine.environment.context import CheckContext
from engine.environment.kubernetes import cluster, kubernetes_checks
from engine.environment.kubernetes.cluster import judge_version
from engine.environment.profile import KubernetesProfile, Profile
from engine.telemetry.nvml import Nvml
from tests.engine.deploy.kubernetes.fake_cluster import APPS, FakeCluster
from tests.engine.environment.kubernetes.conftest import Run


def test_a_cluster_in_order(run: Run, fake: FakeCluster) -> None:
    fake.add_group("autoscaling", "v1", "v2")
    fake.add_group("policy", "v1beta1", "v1")
    fake.add_group("metrics.k8s.io", "v1beta1", resources=("pods", "nodes"))
    results = run(required=True)
    told = {name: result.status for name, result in results.items()}
    skipped = {"gpus", "gateway"}
    assert {name for name, status in told.items() if status is CheckStatus.SKIP} == skipped
    assert {name for name, status in told.items() if status is CheckStatus.PASS} == set(told) - skipped
    reachable = results["reachable"]
    assert f"context fake: {fake.server}, Kubernetes v1.36.1, first answer after" in reachable.observed
    assert reachable.facts == {"context": "fake", "server": fake.server, "version": "v1.36.1"}
    assert "autoscalers autoscaling/v2, disruption budgets policy/v1" in results["version"].observed


def test_without_a_context_all_skip_for_one_reason(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_contexts(monkeypatch, tmp_path)
    began_s = time.perf_counter()
    results = run()
    assert time.perf_counter() - began_s < 5
    assert {result.status for result in results.values()} == {CheckStatus.SKIP}
    assert {result.observed for result in results.values()} == {"no Kubernetes context is configured here"}


def test_a_required_cluster_that_is_not_configured(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_contexts(monkeypatch, tmp_path)
    results = run(required=True)
    reachable = results.pop("reachable")
    assert reachable.status is CheckStatus.FAIL
    assert reachable.remedy is not None
    assert "$KUBECONFIG" in reachable.remedy
    assert {result.status for result in results.values()} == {CheckStatus.SKIP}


@pytest.mark.parametrize("required", [False, True])
def test_a_dead_cluster_costs_little_time(
    required: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = FakeCluster()
        dead.server = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("KUBECONFIG", str(dead.write_kubeconfig(tmp_path)))
    began_s = time.perf_counter()
    results = run(required=required)
    assert time.perf_counter() - began_s < 10
    reachable = results.pop("reachable")
    assert reachable.status is (CheckStatus.FAIL if required else CheckStatus.WARN)
    assert f"nothing listens at {dead.server}" in reachable.observed
    assert "use-context" in (reachable.remedy or "")
    assert {result.observed for result in results.values()} == {"no cluster answers, see kubernetes.reachable"}


def test_a_broken_kubeconfig_is_a_warning_even_where_none_is_required(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").write_text("contexts: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    reachable = run()["reachable"]
    assert reachable.status is CheckStatus.WARN
    assert "is not valid YAML at line" in reachable.observed
    assert str(tmp_path / "broken") in (reachable.remedy or "")


def test_refused_credentials(run: Run, fake: FakeCluster) -> None:
    fake.token = "another"
    reachable = run(required=True)["reachable"]
    assert reachable.status is CheckStatus.FAIL
    assert "does not accept the credentials" in reachable.observed
    assert "Sign in" in (reachable.remedy or "")


EITHER = pytest.mark.parametrize(("required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])


@EITHER
def test_a_cluster_that_stops_answering_is_a_lack(
    required: bool, status: CheckStatus, run: Run, fake: FakeCluster
) -> None:
    fake.statuses["/api/v1/namespaces/default"] = 500
    namespace = run(required=required)["namespace"]
    assert namespace.status is status
    assert "answered 500" in namespace.observed
    assert "log" in (namespace.remedy or "")


@EITHER
def test_a_name_that_takes_long_to_resolve_is_a_lack(
    required: bool, status: CheckStatus, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_arguments, **_more: released.wait(20))
    monkeypatch.setattr(cluster, "CLUSTER_LIMIT_S", 0.5)
    far = FakeCluster()
    far.server = "https://kubernetes.invalid:6443"
    monkeypatch.setenv("KUBECONFIG", str(far.write_kubeconfig(tmp_path)))
    results = run(required=required)
    released.set()
    reachable = results.pop("reachable")
    assert (reachable.status, reachable.taken_s < 10) == (status, True)
    assert "did not answer within 0.5 s" in reachable.observed
    assert "getent hosts" in (reachable.remedy or "")
    assert {result.observed for result in results.values()} == {"no cluster answers, see kubernetes.reachable"}


@EITHER
def test_a_check_that_takes_long_is_a_lack(
    required: bool, status: CheckStatus, run: Run, fake: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CHECK_LIMIT_S", 0.3)
    fake.delays_s["/api/v1/namespaces/default"] = 1.0
    results = run(required=required)
    assert results["namespace"].status is status
    assert results["namespace"].observed == f"{fake.server} did not answer within 0.3 s"
    assert results["permissions"].status is CheckStatus.PASS


def test_the_checks_wait_longer_than_what_is_inside(tmp_path: Path) -> None:
    asked = Profile(title="test", kubernetes=KubernetesProfile(required=True))
    limits_s = {check.timeout_s for check in kubernetes_checks(CheckContext(asked, tmp_path, Nvml()))}
    assert min(limits_s) > cluster.CLUSTER_LIMIT_S + cluster.CHECK_LIMIT_S
    assert max(access.REVIEWS_LIMIT_S, 2 * nodes.LISTING_LIMIT_S) < cluster.CHECK_LIMIT_S


@pytest.mark.parametrize(
    ("minor", "status", "words"),
    [
        (37, CheckStatus.PASS, "server v1.37.0"),
        (39, CheckStatus.PASS, "server v1.39.0"),
        (35, CheckStatus.PASS, "server v1.35.0"),
        (34, CheckStatus.WARN, "no longer fixes 1.34"),
        (20, CheckStatus.WARN, "no longer fixes 1.20"),
        (19, CheckStatus.WARN, "older than 1.20"),
    ],
)
def test_version(minor: int, status: CheckStatus, words: str) -> None:
    discovery = Discovery(f"v1.{minor}.0", minor, 0.01, {"apps": ("v1",)})
    finding = judge_version(discovery, KubernetesProfile(required=True), "37.0.2")
    assert finding.status is status
    assert words in finding.observed
    assert status is CheckStatus.PASS or "Upgrade the cluster to 1.35" in (finding.remedy or "")


def test_a_version_that_cannot_be_read_is_no_warning() -> None:
    discovery = Discovery("built-here", None, 0.01, {"apps": ("v1",)})
    assert judge_version(discovery, KubernetesProfile(), "37.0.2").status is CheckStatus.PASS


@pytest.mark.parametrize(("required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
def test_a_server_without_deployments(required: bool, status: CheckStatus, run: Run, fake: FakeCluster) -> None:
    fake.answers["/apis"]["groups"].remove(APPS)
    version = run(required=required)["version"]
    assert version.status is status
    assert "no Deployments" in version.observed
    assert "apps/v1 is missing" in version.observed


@pytest.mark.kubernetes
def test_a_real_cluster(run: Run) -> None:
    results = run(required=True, cpus=0.1, memory_gb=0.1)
    told = {name: result.status for name, result in results.items()}
    passing = ("reachable", "namespace", "permissions", "nodes")
    assert {name: told[name] for name in passing} == dict.fromkeys(passing, CheckStatus.PASS), results
    assert CheckStatus.ERROR not in told.values()
    assert results["version"].status in (CheckStatus.PASS, CheckStatus.WARN)


def _forget_contexts(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
