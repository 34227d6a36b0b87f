"""Does a cluster answer, and is its version one that rollouts work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from engine.clock import Clock
from engine.deadline import call_within
from engine.deploy.kubernetes import (
    ClusterError,
    ClusterRequestError,
    Discovery,
    KubernetesClient,
    NoContextError,
    Node,
    find_connection,
    open_client,
    read_discovery,
    read_nodes,
)
from engine.environment.check import CheckStatus, Finding, Shared, severity
from engine.environment.profile import KubernetesProfile

# The oldest server that the console is tested on.
OLDEST_TESTED_MINOR = 20
# The project maintains the three newest minor versions: https://kubernetes.io/releases/version-skew-policy/
MAINTAINED_MINORS = 3
CLUSTER_LIMIT_S = 12.0
CHECK_LIMIT_S = 10.0
_SLOW_REMEDY = (
    "Run kubectl get --raw /version in a terminal: if it is slow too, look at the resolution of the server's name "
    "(getent hosts NAME), at the network to it and at its load."
)


@dataclass(frozen=True)
class Cluster:
    """A cluster that answered. `context` is the kubeconfig's name for it; `nodes` lists them when first called."""

    context: str
    client: KubernetesClient
    discovery: Discovery
    nodes: Shared[tuple[Node, ...]]


@dataclass(frozen=True)
class Unavailable:
    """No cluster, why, and what to change."""

    reason: str
    remedy: str
    is_configured: bool = True


def read_cluster(clock: Clock) -> Cluster | Unavailable:
    """Find the context, load its credentials and ask the server what it is; takes 12 s at most.

    The steps have limits of their own, but for the resolution of the server's name.
    """
    try:
        return call_within(CLUSTER_LIMIT_S, lambda: _open_cluster(clock))
    except ClusterError as error:
        return Unavailable(str(error), error.remedy, is_configured=not isinstance(error, NoContextError))
    except TimeoutError:
        return Unavailable(f"the current context's cluster did not answer within {CLUSTER_LIMIT_S:g} s", _SLOW_REMEDY)


def _open_cluster(clock: Clock) -> Cluster:
    connection = find_connection()
    client = open_client(connection)
    discovery = read_discovery(client, clock)
    return Cluster(connection.context, client, discovery, Shared(lambda: read_nodes(client)))


def on_cluster(
    cluster: Shared[Cluster | Unavailable], profile: KubernetesProfile, check: Callable[[Cluster], Finding]
) -> Callable[[], Finding]:
    """The check where a cluster answers, and a skip where none does. A request that gets no good answer, or a check
    that takes longer than 10 s, is a lack of the cluster's."""

    def run() -> Finding:
        found = cluster()
        if isinstance(found, Unavailable):
            reason = "no cluster answers, see kubernetes.reachable" if found.is_configured else found.reason
            return Finding(CheckStatus.SKIP, reason)
        try:
            return call_within(CHECK_LIMIT_S, lambda: check(found))
        except ClusterRequestError as error:
            return Finding(severity(profile.required), str(error), error.remedy)
        except TimeoutError:
            observed = f"{found.client.server} did not answer within {CHECK_LIMIT_S:g} s"
            return Finding(severity(profile.required), observed, _SLOW_REMEDY)

    return run


def judge_reachable(found: Cluster | Unavailable, profile: KubernetesProfile) -> Finding:
    """Skip where no context is configured and none is required; a context that does not work is always told."""
    if isinstance(found, Unavailable):
        if not found.is_configured and not profile.required:
            return Finding(CheckStatus.SKIP, found.reason)
        return Finding(severity(profile.required), found.reason, found.remedy)
    server, discovery = found.client.server, found.discovery
    observed = (
        f"context {found.context}: {server}, Kubernetes {discovery.version}, "
        f"first answer after {discovery.latency_s * 1000:.0f} ms"
    )
    facts = {"context": found.context, "server": server, "version": discovery.version}
    return Finding(CheckStatus.PASS, observed, facts=facts)


def judge_version(discovery: Discovery, profile: KubernetesProfile, client_version: str | None = None) -> Finding:
    """Fail without apps/v1, which Deployments live in; warn about what is untested or no longer maintained.

    Nothing else hangs on the client library's version, because requests go out as plain JSON of stable APIs. It does
    prove which minor version is out: library 37 was made for Kubernetes 1.37.
    """
    client_version = client_version or metadata.version("kubernetes")
    newest_minor = int(client_version.split(".")[0])
    maintained_minor = newest_minor - MAINTAINED_MINORS + 1
    observed = f"server {discovery.version}, client library {client_version}; {_describe_apis(discovery)}"
    facts = {"version": discovery.version, "client_version": client_version}
    upgrade = f"Upgrade the cluster to 1.{maintained_minor} or newer, one minor version at a time"
    if not discovery.has("apps", "v1"):
        return Finding(severity(profile.required), f"{observed}; apps/v1 is missing", f"{upgrade}.", facts)
    if discovery.minor is not None and discovery.minor < OLDEST_TESTED_MINOR:
        untested = f"older than 1.{OLDEST_TESTED_MINOR}, the oldest version that rollouts are tested on"
        return Finding(CheckStatus.WARN, f"{observed}; {untested}", f"{upgrade}.", facts)
    if discovery.minor is not None and discovery.minor < maintained_minor:
        over = f"the Kubernetes project no longer fixes 1.{discovery.minor}"
        remedy = f"{upgrade}, or make sure that its vendor still sends security fixes."
        return Finding(CheckStatus.WARN, f"{observed}; {over}", remedy, facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def _describe_apis(discovery: Discovery) -> str:
    """The versions of what rollouts use, where they differ between servers."""
    parts = []
    for group, what in (("apps", "Deployments"), ("autoscaling", "autoscalers"), ("policy", "disruption budgets")):
        versions = discovery.groups.get(group)
        parts.append(f"{what} {group}/{max(versions, key=_maturity)}" if versions else f"no {what}")
    return ", ".join(parts)


def _maturity(version: str) -> tuple[bool, str]:
    """Stable versions over betas, then the newer."""
    return "alpha" not in version and "beta" not in version, version
