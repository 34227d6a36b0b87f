"""What this user may do in a cluster, and the grant of what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.deadline import map_within
from engine.deploy.kubernetes.client import KubernetesClient
from engine.deploy.kubernetes.errors import ClusterRequestError

_NUM_AT_ONCE = 8
REVIEWS_LIMIT_S = 6.0
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Access:
    """One verb upon one resource: `deployments/scale` of group `apps`; the core group is the empty text."""

    group: str
    resource: str
    verb: str

    @property
    def qualified(self) -> str:
        """`deployments.apps/scale`, as kubectl writes it."""
        name, _, subresource = self.resource.partition("/")
        return f"{name}{'.' if self.group else ''}{self.group}{'/' if subresource else ''}{subresource}"


@dataclass(frozen=True)
class Review:
    """The server's answer about one access."""

    access: Access
    is_allowed: bool


def review_access(client: KubernetesClient, namespace: str, asked: Sequence[Access]) -> tuple[Review, ...]:
    """Ask the server about each access in `namespace`, eight at a time; in the order asked. Takes 6 s at most.

    Each is one SelfSubjectAccessReview, because the one request that lists all rules is incomplete with webhooks.

    Raises:
        ClusterRequestError: the server does not answer, or does not let this user ask (403).
    """
    try:
        return map_within(REVIEWS_LIMIT_S, lambda access: _review(client, namespace, access), asked, _NUM_AT_ONCE)
    except TimeoutError:
        message = f"{client.server} did not answer {len(asked)} access reviews within {REVIEWS_LIMIT_S:g} s"
    raise ClusterRequestError(message, "Look at the API server's load, and at its authorization webhook if it has one.")


def _review(client: KubernetesClient, namespace: str, access: Access) -> Review:
    resource, _, subresource = access.resource.partition("/")
    attributes = {
        "namespace": namespace,
        "group": access.group,
        "resource": resource,
        "subresource": subresource,
        "verb": access.verb,
    }
    if resource == "namespaces":
        attributes["name"] = namespace
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
    return Review(access, bool((answer.get("status") or {}).get("allowed")))


def name_user(client: KubernetesClient) -> str | None:
    """Who this user is to the server (SelfSubjectReview, since 1.28; before that a service account's own token).
    None where neither tells.
    """
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = client.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
        return str(answer["status"]["userInfo"]["username"])
    except (ClusterRequestError, KeyError, TypeError):
        return read_subject(client.token)


def read_subject(token: str | None) -> str | None:
    """The service account that a token says it belongs to; not verified, as the server has done that."""
    try:
        payload = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        subject = str(claims["sub"])
    except (ValueError, IndexError, KeyError, TypeError):
        return None
    return subject if subject.startswith(_SERVICE_ACCOUNT) else None


def build_grant(namespace: str, missing: Sequence[Access], user: str | None) -> str:
    """One command for an administrator of the cluster: a Role of exactly the missing verbs, bound to this user.

    The role's name follows from its rules, so that a later grant adds to this one instead of replacing it. Where the
    user is not known the command says USER.
    """
    rules = _rules(missing)
    digest = hashlib.sha256(json.dumps(rules).encode()).hexdigest()[:8]
    metadata = {"name": f"autoglm-console-{digest}", "namespace": namespace}
    kind = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{kind}/v1", "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": f"{kind}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": kind, "kind": "Role", "name": metadata["name"]},
        "subjects": [_subject(user or "USER")],
    }
    document = {"apiVersion": "v1", "kind": "List", "items": [role, binding]}
    return f"echo {shlex.quote(json.dumps(document, separators=(',', ':')))} | kubectl apply -f -"


def group_verbs(accesses: Iterable[Access]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The verbs of each (group, resource), in the order given."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for access in accesses:
        key = access.group, access.resource
        found[key] = (*found.get(key, ()), access.verb)
    return found


def _rules(missing: Iterable[Access]) -> list[dict[str, Any]]:
    """One rule for all resources of a group that miss the same verbs."""
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (group, resource), verbs in group_verbs(missing).items():
        together.setdefault((group, verbs), []).append(resource)
    return [
        {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
        for (group, verbs), resources in together.items()
    ]


def _subject(user: str) -> dict[str, str]:
    if user.startswith(_SERVICE_ACCOUNT):
        namespace, _, name = user.removeprefix(_SERVICE_ACCOUNT).partition(":")
        return {"kind": "ServiceAccount", "namespace": namespace, "name": name}
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
