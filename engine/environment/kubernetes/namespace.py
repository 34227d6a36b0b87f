"""Does the namespace exist that the profile deploys to."""

from __future__ import annotations

from engine.deploy.kubernetes import ClusterRequestError, read_namespace_phase
from engine.environment.check import CheckStatus, Finding, severity
from engine.environment.kubernetes.cluster import Cluster
from engine.environment.profile import KubernetesProfile


def check_namespace(cluster: Cluster, profile: KubernetesProfile) -> Finding:
    """Ask for it; a user that may not look is told by the check of permissions."""
    try:
        return judge_namespace(read_namespace_phase(cluster.client, profile.namespace), profile)
    except ClusterRequestError as error:
        if error.http_status != 403:
            raise
        reason = f"this user may not look at namespace {profile.namespace}, see kubernetes.permissions"
        return Finding(CheckStatus.SKIP, reason)


def judge_namespace(phase: str | None, profile: KubernetesProfile) -> Finding:
    """`phase` is None where there is no such namespace."""
    name, facts = profile.namespace, {"phase": phase}
    if phase is None:
        return Finding(
            severity(profile.required), f"there is no namespace {name}", f"kubectl create namespace {name}", facts
        )
    if phase != "Active":
        remedy = f"Wait until kubectl get namespace {name} finds none, then: kubectl create namespace {name}"
        return Finding(severity(profile.required), f"namespace {name} is {phase}: it takes nothing new", remedy, facts)
    return Finding(CheckStatus.PASS, f"namespace {name} is {phase}", facts=facts)
