"""What a user may do, who it is, and the grant."""

from __future__ import annotations

import base64
import json
import shlex
import time
from typing import Any

import pytest

from engine.deploy.kubernetes import (
    Access,
    ClusterRequestError,
    KubernetesClient,
    build_grant,
    name_user,
    review_access,
)
from engine.deploy.kubernetes import access as access_module
from engine.deploy.kubernetes.access import read_subject
from tests.engine.deploy.kubernetes.fake_cluster import REVIEWS, FakeCluster

MISSING = [
    Access("apps", "deployments", "create"),
    Access("apps", "deployments", "patch"),
    Access("apps", "deployments/scale", "patch"),
    Access("", "pods/log", "get"),
    Access("", "services", "create"),
    Access("", "services", "patch"),
    Access("", "secrets", "create"),
    Access("", "secrets", "patch"),
]


def read_grant(command: str) -> list[dict[str, Any]]:
    """The objects that a grant applies."""
    echo, document, *rest = shlex.split(command)
    assert (echo, rest) == ("echo", ["|", "kubectl", "apply", "-f", "-"])
    items: list[dict[str, Any]] = json.loads(document)["items"]
    return items


def token_of(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{payload}.signature"


def test_reviews_come_in_the_order_asked(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.denied = {("create", "deployments"), ("get", "pods/log")}
    reviews = review_access(fake_client, "models", MISSING)
    assert [review.access for review in reviews] == MISSING
    assert [review.access for review in reviews if not review.is_allowed] == [MISSING[0], MISSING[3]]
    assert {attributes["namespace"] for attributes in fake.asked} == {"models"}


def test_a_namespace_is_asked_about_by_its_name(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    review_access(fake_client, "models", [Access("", "namespaces", "get")])
    assert fake.asked[0]["name"] == "models"


def test_reviews_that_are_forbidden(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    fake.statuses[REVIEWS] = 403
    with pytest.raises(ClusterRequestError) as caught:
        review_access(fake_client, "models", MISSING)
    assert caught.value.http_status == 403


def test_reviews_share_one_time_limit_and_the_rest_is_not_asked(
    fake: FakeCluster, fake_client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_module, "REVIEWS_LIMIT_S", 0.3)
    fake.delays_s[REVIEWS] = 0.5
    asked = [Access("", "pods", str(number)) for number in range(40)]
    began_s = time.monotonic()
    with pytest.raises(ClusterRequestError, match=r"did not answer 40 access reviews within 0\.3 s") as caught:
        review_access(fake_client, "models", asked)
    assert time.monotonic() - began_s < 2.2  # one after the other, eight at a time, would take 2.5 s
    assert "webhook" in caught.value.remedy
    time.sleep(0.7)
    assert len(fake.asked) == 8


@pytest.mark.parametrize(
    ("access", "qualified"),
    [
        (Access("", "pods/log", "get"), "pods/log"),
        (Access("apps", "deployments", "get"), "deployments.apps"),
        (Access("apps", "deployments/scale", "get"), "deployments.apps/scale"),
    ],
)
def test_qualified_name(access: Access, qualified: str) -> None:
    assert access.qualified == qualified


def test_the_grant_is_exactly_what_is_missing() -> None:
    role, binding = read_grant(build_grant("models", MISSING, "system:serviceaccount:ci:robot"))
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {(access.group, access.resource, access.verb) for access in MISSING}
    assert len(role["rules"]) == 4
    assert role["metadata"] == binding["metadata"]
    assert role["metadata"]["namespace"] == "models"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "ci", "name": "robot"}]


def test_a_second_grant_does_not_replace_the_first() -> None:
    first, second = (read_grant(build_grant("models", part, "jane")) for part in (MISSING[:3], MISSING[3:]))
    assert first[0]["metadata"]["name"] != second[0]["metadata"]["name"]
    assert first == read_grant(build_grant("models", MISSING[:3], "jane"))


def test_a_users_name_survives_the_shell() -> None:
    _, binding = read_grant(build_grant("models", MISSING, "o'hara $HOME"))
    assert binding["subjects"][0] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "o'hara $HOME"}
    assert '"name":"USER"' in build_grant("models", MISSING, None)


def test_who_the_server_says(fake: FakeCluster, fake_client: KubernetesClient) -> None:
    assert name_user(fake_client) == "jane"
    fake.user = None
    assert name_user(fake_client) is None


@pytest.mark.parametrize(
    ("token", "subject"),
    [
        (token_of({"sub": "system:serviceaccount:ci:robot"}), "system:serviceaccount:ci:robot"),
        (token_of({"sub": "someone-at-an-identity-provider"}), None),
        (token_of({}), None),
        (token_of([]), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.\x00.c", None),
        (None, None),
    ],
)
def test_who_the_token_says(token: str | None, subject: str | None) -> None:
    assert read_subject(token) == subject


@pytest.mark.kubernetes
def test_a_real_cluster_lets_its_administrator(real_client: KubernetesClient) -> None:
    assert all(review.is_allowed for review in review_access(real_client, "default", MISSING))
