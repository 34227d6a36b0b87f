"""Parts that a cluster may have or not: the metrics API, and the Gateway API."""

from __future__ import annotations

from engine.deploy.kubernetes import read_resources
from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.kubernetes.cluster import Cluster
from engine.environment.kubernetes.rules import GATEWAY

METRICS = "metrics.k8s.io"
_INSTALL_METRICS = (
    "Install metrics-server: kubectl apply -f "
    "https://github.com/kubernetes-sigs/metrics-server/releases/latest/download/components.yaml"
)
_REPAIR_METRICS = (
    "Look at what serves it: kubectl describe apiservice v1beta1.metrics.k8s.io; then, with metrics-server, "
    "kubectl -n kube-system rollout restart deployment metrics-server"
)


def check_metrics(cluster: Cluster) -> Finding:
    """The group may be registered while what serves it is down, so one of its versions is asked."""
    versions = cluster.discovery.groups.get(METRICS, ())
    resources = read_resources(cluster.client, METRICS, versions[0]) if versions else None
    return judge_metrics(versions, resources)


def judge_metrics(versions: tuple[str, ...], resources: frozenset[str] | None) -> Finding:
    """`resources` is None where nothing answers for the group."""
    facts: dict[str, Fact] = {"versions": " ".join(versions), "is_answering": resources is not None}
    if not versions:
        observed = f"{METRICS} is absent: autoscalers cannot see CPU and memory"
        return Finding(CheckStatus.WARN, observed, _INSTALL_METRICS, facts)
    if resources is None or "pods" not in resources:
        observed = f"{METRICS}/{versions[0]} is registered, and what serves it gives no pod metrics"
        return Finding(CheckStatus.WARN, observed, _REPAIR_METRICS, facts)
    return Finding(CheckStatus.PASS, f"{METRICS}/{versions[0]} answers", facts=facts)


def check_gateway(cluster: Cluster) -> Finding:
    """Ask the preferred version whether it knows HTTPRoutes."""
    versions = cluster.discovery.groups.get(GATEWAY, ())
    resources = read_resources(cluster.client, GATEWAY, versions[0]) if versions else None
    return judge_gateway(versions, resources)


def judge_gateway(versions: tuple[str, ...], resources: frozenset[str] | None) -> Finding:
    """Skip where it is absent, as it is one of two ways to split traffic; warn where it is there by half."""
    facts = {"versions": " ".join(versions)}
    if not versions:
        reason = f"{GATEWAY} is not installed; canaries then get their share of traffic by their number of replicas"
        return Finding(CheckStatus.SKIP, reason, facts=facts)
    if resources is None or "httproutes" not in resources:
        remedy = (
            "Install the standard channel's definitions: kubectl apply --server-side -f "
            "https://github.com/kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml"
        )
        return Finding(CheckStatus.WARN, f"{GATEWAY}/{versions[0]} is there without httproutes", remedy, facts)
    return Finding(CheckStatus.PASS, f"{GATEWAY} {', '.join(versions)} with httproutes", facts=facts)
