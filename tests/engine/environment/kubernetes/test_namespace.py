"""The namespace of the profile."""

from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from tests.engine.deploy.kubernetes.fake_cluster import FakeCluster
from tests.engine.environment.kubernetes.conftest import Run


def test_it_exists(run: Run, fake: FakeCluster) -> None:
    namespace = run()["namespace"]
    assert (namespace.status, namespace.observed) == (CheckStatus.PASS, "namespace default is Active")


@pytest.mark.parametrize(("required", "status"), [(True, CheckStatus.FAIL), (False, CheckStatus.WARN)])
def test_it_is_missing(required: bool, status: CheckStatus, run: Run, fake: FakeCluster) -> None:
    namespace = run(required=required, namespace="models")["namespace"]
    assert (namespace.status, namespace.observed) == (status, "there is no namespace models")
    assert namespace.remedy == "kubectl create namespace models"


def test_it_is_being_deleted(run: Run, fake: FakeCluster) -> None:
    fake.answers["/api/v1/namespaces/default"] = {"status": {"phase": "Terminating"}}
    namespace = run(required=True)["namespace"]
    assert namespace.status is CheckStatus.FAIL
    assert "is Terminating" in namespace.observed
    assert "kubectl create namespace default" in (namespace.remedy or "")


def test_a_user_that_may_not_look(run: Run, fake: FakeCluster) -> None:
    fake.statuses["/api/v1/namespaces/default"] = 403
    namespace = run(required=True)["namespace"]
    assert namespace.status is CheckStatus.SKIP
    assert "see kubernetes.permissions" in namespace.observed


@pytest.mark.kubernetes
def test_a_real_cluster_lacks_it(run: Run) -> None:
    namespace = run(required=True, namespace="no-such-namespace")["namespace"]
    assert namespace.status is CheckStatus.FAIL
    assert namespace.remedy == "kubectl create namespace no-such-namespace"
