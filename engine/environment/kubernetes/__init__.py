"""Checks of Kubernetes: is there a cluster that rollouts can use, as this user, and what has it room for."""

from __future__ import annotations

from functools import partial

from engine.environment.check import Check, Shared
from engine.environment.context import CheckContext
from engine.environment.kubernetes.apis import check_gateway, check_metrics
from engine.environment.kubernetes.cluster import (
    CHECK_LIMIT_S,
    CLUSTER_LIMIT_S,
    judge_reachable,
    judge_version,
    on_cluster,
    read_cluster,
)
from engine.environment.kubernetes.gpus import check_gpus
from engine.environment.kubernetes.namespace import check_namespace
from engine.environment.kubernetes.nodes import check_nodes
from engine.environment.kubernetes.permissions import check_permissions

__all__ = ["kubernetes_checks"]

_TIMEOUT_S = CLUSTER_LIMIT_S + CHECK_LIMIT_S + 1.0


def kubernetes_checks(context: CheckContext) -> tuple[Check, ...]:
    """The checks of Kubernetes. All but the first skip where no cluster answers; the first says why none does."""
    profile = context.profile.kubernetes
    check = partial(Check, timeout_s=_TIMEOUT_S)
    cluster = Shared(lambda: read_cluster(context.clock))
    asked = (
        f"CPUs: {profile.cpus.describe()}; memory: {profile.memory_gb.describe('GB')}; GPUs: {profile.gpus.describe()}"
    )
    return (
        check(
            "kubernetes.reachable",
            "Kubernetes cluster",
            "the current context's API server answers"
            + ("" if profile.required else ", where a context is configured"),
            lambda: judge_reachable(cluster(), profile),
        ),
        check(
            "kubernetes.version",
            "Kubernetes version",
            "serves apps/v1, is 1.20 or newer and still maintained",
            on_cluster(cluster, profile, lambda found: judge_version(found.discovery, profile)),
        ),
        check(
            "kubernetes.namespace",
            "Kubernetes namespace",
            f"namespace {profile.namespace} exists",
            on_cluster(cluster, profile, lambda found: check_namespace(found, profile)),
        ),
        check(
            "kubernetes.permissions",
            "Kubernetes permissions",
            f"this user may do in namespace {profile.namespace} all that rollouts do",
            on_cluster(cluster, profile, lambda found: check_permissions(found, profile)),
        ),
        check(
            "kubernetes.nodes",
            "Kubernetes nodes",
            f"ready, and free on one node: {asked}",
            on_cluster(cluster, profile, lambda found: check_nodes(found, profile)),
        ),
        check(
            "kubernetes.gpus",
            "GPUs in Kubernetes",
            f"every GPU of a node can be given to a pod; GPUs on one node: {profile.gpus.describe()}",
            on_cluster(cluster, profile, lambda found: check_gpus(found, profile)),
        ),
        check(
            "kubernetes.metrics",
            "Kubernetes metrics API",
            "metrics.k8s.io answers, which autoscaling reads",
            on_cluster(cluster, profile, check_metrics),
        ),
        check(
            "kubernetes.gateway",
            "Kubernetes Gateway API",
            "HTTPRoute, where canaries are to split traffic by weight",
            on_cluster(cluster, profile, check_gateway),
        ),
    )
