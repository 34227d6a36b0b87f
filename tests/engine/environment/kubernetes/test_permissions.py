"""What this user may do, what it lacks, and whether the remedy grants that."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.kubernetes import Access, ClusterRequestError, KubernetesClient, Review
from engine.environment.check import CheckResult, CheckStatus
from engine.environment.kubernetes.permissions import judge_permissions
from engine.environment.kubernetes.rules import GATEWAY, NEEDS
from engine.environment.profile import KubernetesProfile
from tests.engine.deploy.kubernetes.fake_cluster import REVIEWS, FakeCluster
from tests.engine.environment.kubernetes.conftest import Run
from tests.fakes import wait_until

ALL = [access for need in NEEDS for access in need.accesses]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def test_everything_is_allowed(run: Run, fake: FakeCluster) -> None:
    permissions = run(required=True)["permissions"]
    assert permissions.status is CheckStatus.PASS
    assert permissions.observed == f"all {len(ALL)} verbs that rollouts use are allowed in namespace default"
    assert len(fake.asked) == len(ALL)


@pytest.mark.parametrize(("required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
def test_what_is_denied_is_named_by_resource(required: bool, status: CheckStatus, run: Run, fake: FakeCluster) -> None:
    fake.denied = {("create", "deployments"), ("patch", "deployments"), ("get", "pods/log")}
    permissions = run(required=required, namespace="models")["permissions"]
    assert permissions.status is status
    assert permissions.observed == (
        f"3 of {len(ALL)} verbs are denied to jane in namespace models: "
        "deployments.apps: create, patch (each revision of a model is one Deployment); "
        "pods/log: get (why a pod did not come up)"
    )
    assert permissions.facts == {"denied": "create:deployments.apps patch:deployments.apps get:pods/log"}
    role, binding = _granted(permissions)
    assert role["rules"] == [
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    assert binding["subjects"][0]["name"] == "jane"


def test_optional_verbs_are_a_warning(run: Run, fake: FakeCluster) -> None:
    fake.denied = {("list", "events"), ("patch", "poddisruptionbudgets")}
    permissions = run(required=True)["permissions"]
    assert permissions.status is CheckStatus.WARN
    assert "events: list (optional: why a pod is not scheduled)" in permissions.observed


def test_routes_are_asked_about_only_where_the_gateway_api_is(run: Run, fake: FakeCluster) -> None:
    fake.denied = {("create", "httproutes")}
    assert run()["permissions"].status is CheckStatus.PASS
    fake.add_group(GATEWAY, "v1", resources=("httproutes",))
    permissions = run()["permissions"]
    assert permissions.status is CheckStatus.WARN
    assert "httproutes.gateway.networking.k8s.io: create (optional:" in permissions.observed


def test_a_user_without_a_name() -> None:
    reviews = [Review(access, False) for access in ALL]
    finding = judge_permissions(NEEDS, reviews, None, KubernetesProfile(required=True))
    assert finding.status is CheckStatus.FAIL
    assert "with this user's name for USER: echo" in (finding.remedy or "")


def test_a_user_that_may_not_ask(run: Run, fake: FakeCluster) -> None:
    fake.statuses[REVIEWS] = 403
    permissions = run(required=True)["permissions"]
    assert permissions.status is CheckStatus.WARN
    assert "may not ask what it may do" in permissions.observed
    assert "--clusterrole=system:basic-user" in (permissions.remedy or "")


@pytest.fixture
def limited(real_client: KubernetesClient, real_namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace of the real cluster, whose account `robot` may read pods and little else; $KUBECONFIG is its own."""
    accounts = f"/api/v1/namespaces/{real_namespace}/serviceaccounts"
    real_client.post(accounts, {"metadata": {"name": "robot"}})
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "create"]},
    ]
    role = {"metadata": {"name": "little"}, "rules": rules}
    real_client.post(f"{RBAC}/namespaces/{real_namespace}/roles", role)
    binding = {
        "metadata": {"name": "little"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "little"},
        "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": real_namespace}],
    }
    real_client.post(f"{RBAC}/namespaces/{real_namespace}/rolebindings", binding)
    request = {"spec": {"audiences": [], "expirationSeconds": 600}}
    token = real_client.post(f"{accounts}/robot/token", request)["status"]["token"]
    kubeconfig = tmp_path / "robot"
    kubeconfig.write_text(_with_token(Path(os.environ["KUBECONFIG"]), token))
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return real_namespace


@pytest.mark.kubernetes
@pytest.mark.parametrize("way", ["kubectl", "api"])
def test_a_real_account_lacks_exactly_this_and_the_remedy_grants_it(
    way: str,
    run: Run,
    limited: str,
    real_client: KubernetesClient,
    tmp_path: Path,
) -> None:
    if way == "kubectl" and shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    admin_config = real_client.connection.kubeconfig
    assert admin_config is not None

    def is_settled() -> bool:
        return "create:deployments.apps" not in str(run(namespace=limited)["permissions"].facts["denied"])

    wait_until(is_settled, 20)
    before = run(required=True, namespace=limited)
    permissions = before["permissions"]
    assert permissions.status is CheckStatus.FAIL
    had = {
        *(Access("", "pods", verb) for verb in ("get", "list", "watch")),
        *(Access("apps", "deployments", verb) for verb in ("get", "list", "watch", "create")),
    }
    lacking = [f"{access.verb}:{access.qualified}" for access in ALL if access not in had]
    assert permissions.facts["denied"] == " ".join(lacking)
    assert f"{len(lacking)} of {len(ALL)} verbs are denied to system:serviceaccount:{limited}:robot" in (
        permissions.observed
    )
    assert before["nodes"].status is CheckStatus.SKIP
    assert before["gpus"].status is CheckStatus.SKIP
    assert before["namespace"].status is CheckStatus.SKIP

    if way == "kubectl":
        command = (permissions.remedy or "").split(" run: ", 1)[1]
        environment = {**os.environ, "KUBECONFIG": admin_config, "HOME": str(tmp_path)}
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    else:
        role, binding = _granted(permissions)
        real_client.post(f"{RBAC}/namespaces/{limited}/roles", role)
        real_client.post(f"{RBAC}/namespaces/{limited}/rolebindings", binding)
    wait_until(lambda: run(namespace=limited)["permissions"].status is CheckStatus.PASS, 20)
    assert run(namespace=limited)["namespace"].status is CheckStatus.PASS
    # No more than that: the grant stays inside its namespace.
    assert run(required=True)["permissions"].status is CheckStatus.FAIL


@pytest.mark.kubernetes
def test_a_real_account_may_not_list_nodes_and_the_remedy_grants_it(
    run: Run,
    limited: str,
    real_client: KubernetesClient,
    tmp_path: Path,
) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("no kubectl on the PATH")
    nodes = run(namespace=limited, cpus=0.1)["nodes"]
    assert nodes.status is CheckStatus.WARN
    assert f"system:serviceaccount:{limited}:robot may not list nodes" in nodes.observed
    command = (nodes.remedy or "").split(" run: ", 1)[1]
    environment = {**os.environ, "KUBECONFIG": str(real_client.connection.kubeconfig), "HOME": str(tmp_path)}
    try:
        done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: run(namespace=limited, cpus=0.1)["nodes"].status is CheckStatus.PASS, 20)
    finally:
        for kind in ("clusterrolebindings", "clusterroles"):
            with contextlib.suppress(ClusterRequestError):  # not made
                real_client.request("DELETE", f"{RBAC}/{kind}/autoglm-console-nodes")


def _granted(permissions: CheckResult) -> list[dict[str, Any]]:
    """The objects that the remedy applies."""
    command = (permissions.remedy or "").split(": echo ", 1)[1]
    items: list[dict[str, Any]] = json.loads(shlex.split(command)[0])["items"]
    return items


def _with_token(kubeconfig: Path, token: str) -> str:
    """The same kubeconfig, its users with another token."""
    import yaml

    document = yaml.safe_load(kubeconfig.read_text())
    for user in document["users"]:
        user["user"] = {"token": token}
    return json.dumps(document)
