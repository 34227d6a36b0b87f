"""May this user do what rollouts do."""

from __future__ import annotations

from collections.abc import Sequence

from engine.deploy.kubernetes import (
    Access,
    ClusterRequestError,
    KubernetesClient,
    Review,
    build_grant,
    name_user,
    review_access,
)
from engine.environment.check import CheckStatus, Finding, severity
from engine.environment.kubernetes.cluster import Cluster
from engine.environment.kubernetes.rules import GATEWAY, GATEWAY_NEEDS, NEEDS, Need
from engine.environment.profile import KubernetesProfile

_ASK_REMEDY = (
    "Have an administrator of the cluster restore the default binding: kubectl create clusterrolebinding "
    "basic-user --clusterrole=system:basic-user --group=system:authenticated"
)


def check_permissions(cluster: Cluster, profile: KubernetesProfile) -> Finding:
    """Ask about each verb in the table, and about HTTPRoutes where the Gateway API is installed."""
    needs = NEEDS + (GATEWAY_NEEDS if GATEWAY in cluster.discovery.groups else ())
    asked = [access for need in needs for access in need.accesses]
    try:
        reviews = review_access(cluster.client, profile.namespace, asked)
    except ClusterRequestError as error:
        if error.http_status != 403:
            raise
        return Finding(CheckStatus.WARN, f"this user may not ask what it may do: {error}", _ASK_REMEDY)
    return judge_permissions(needs, reviews, _name_if_needed(cluster.client, reviews), profile)


def judge_permissions(
    needs: Sequence[Need], reviews: Sequence[Review], user: str | None, profile: KubernetesProfile
) -> Finding:
    """Name what is denied, by resource; the remedy grants exactly that. Only optional verbs missing is a warning."""
    denied = [review.access for review in reviews if not review.is_allowed]
    facts = {"denied": " ".join(f"{access.verb}:{access.qualified}" for access in denied)}
    where = f"in namespace {profile.namespace}"
    if not denied:
        return Finding(CheckStatus.PASS, f"all {len(reviews)} verbs that rollouts use are allowed {where}", facts=facts)
    optional = {access for need in needs if need.is_optional for access in need.accesses}
    status = CheckStatus.WARN if optional.issuperset(denied) else severity(profile.required)
    lines = [line for need in needs if (line := _describe_denied(need, denied))]
    observed = f"{len(denied)} of {len(reviews)} verbs are denied to {user or 'this user'} {where}: {'; '.join(lines)}"
    grant = build_grant(profile.namespace, denied, user)
    whom = "" if user else ", with this user's name for USER"
    return Finding(status, observed, f"Have an administrator of the cluster run{whom}: {grant}", facts)


def _describe_denied(need: Need, denied: Sequence[Access]) -> str | None:
    """`deployments.apps: create, patch (each revision of a model is one Deployment)`."""
    lacking = [access for access in need.accesses if access in denied]
    if not lacking:
        return None
    reason = f"optional: {need.reason}" if need.is_optional else need.reason
    return f"{lacking[0].qualified}: {', '.join(access.verb for access in lacking)} ({reason})"


def _name_if_needed(client: KubernetesClient, reviews: Sequence[Review]) -> str | None:
    return None if all(review.is_allowed for review in reviews) else name_user(client)
