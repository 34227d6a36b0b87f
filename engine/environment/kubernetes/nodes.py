"""Are the nodes in order, and has one of them room for what the profile asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.deploy.kubernetes import ClusterRequestError, Node, Resources, name_user, read_requests
from engine.environment.check import CheckStatus, Finding, format_gb, severity, worst
from engine.environment.kubernetes.cluster import Cluster
from engine.environment.profile import GB, Bound, KubernetesProfile

# A taint that only keeps pods away which ask for no GPU; ours ask for one and tolerate it.
_GPU_TAINT = "nvidia.com/gpu"
_NUM_SHOWN = 5
_ORDER = (CheckStatus.PASS, CheckStatus.WARN, CheckStatus.FAIL)


def check_nodes(cluster: Cluster, profile: KubernetesProfile) -> Finding:
    """List nodes, and pods for what they request; a user may be allowed the first and not the second."""
    try:
        nodes = cluster.nodes()
    except ClusterRequestError as error:
        if error.http_status != 403:
            raise
        return judge_forbidden(name_user(cluster.client), profile)
    try:
        requests = read_requests(cluster.client)
    except ClusterRequestError as error:
        if error.http_status != 403:
            raise
        requests = None
    return judge_nodes(nodes, requests, profile)


def judge_forbidden(user: str | None, profile: KubernetesProfile) -> Finding:
    """Rollouts work without looking at nodes, so this counts only where the profile asks something of them."""
    observed = f"{user or 'this user'} may not list nodes, so their room cannot be told"
    if all(bound.require is None and bound.recommend is None for bound in _bounds(profile)):
        return Finding(CheckStatus.SKIP, observed)
    kind, name = "user", user or "USER"
    if name.startswith("system:serviceaccount:"):
        kind, name = "serviceaccount", name.removeprefix("system:serviceaccount:")
    remedy = (
        "Have an administrator of the cluster run: kubectl create clusterrole autoglm-console-nodes --verb=list "
        "--resource=nodes,pods && kubectl create clusterrolebinding autoglm-console-nodes "
        f"--clusterrole=autoglm-console-nodes --{kind}={name}"
    )
    return Finding(CheckStatus.WARN, observed, remedy)


def judge_nodes(nodes: Sequence[Node], requests: Mapping[str, Resources] | None, profile: KubernetesProfile) -> Finding:
    """The best node counts. `requests` is what pods ask of each node; None takes all that is allocatable as free."""
    facts = _facts(nodes)
    if not nodes:
        return Finding(severity(profile.required), "the cluster has no nodes", "Join a node to the cluster.", facts)
    observed = _describe(nodes, requests)
    usable = [node for node in nodes if is_usable(node)]
    if not usable:
        return Finding(severity(profile.required), f"{observed}; none takes pods", _repair(nodes), facts)
    best = min(usable, key=lambda node: (_ORDER.index(_room(node, requests, profile)), _used_up(node, requests)))
    status = _room(best, requests, profile)
    if status is not CheckStatus.PASS:
        return Finding(status, observed, _make_room(best, _free(best, requests), profile), facts)
    if any(not node.is_ready or node.pressures for node in nodes):
        return Finding(CheckStatus.WARN, observed, _repair(nodes), facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def is_usable(node: Node) -> bool:
    """May a pod of ours be scheduled there."""
    return node.is_ready and not node.is_cordoned and all(taint == _GPU_TAINT for taint in node.taints)


def _free(node: Node, requests: Mapping[str, Resources] | None) -> Resources:
    return node.allocatable - (requests or {}).get(node.name, Resources())


def _room(node: Node, requests: Mapping[str, Resources] | None, profile: KubernetesProfile) -> CheckStatus:
    return worst(
        bound.judge(amount) for bound, amount in zip(_bounds(profile), _amounts(_free(node, requests)), strict=True)
    )


def _bounds(profile: KubernetesProfile) -> tuple[Bound, Bound, Bound]:
    return profile.cpus, profile.memory_gb, profile.gpus


def _amounts(resources: Resources) -> tuple[float, float, float]:
    """In the units of the profile, none below zero: the kubelet's own pods may request more than is allocatable."""
    return max(resources.cpus, 0), max(resources.memory_bytes / GB, 0), max(resources.gpus, 0)


def _used_up(node: Node, requests: Mapping[str, Resources] | None) -> tuple[float, ...]:
    """Sorts the node with most left first: GPUs count before memory, memory before CPUs."""
    free = _free(node, requests)
    return -free.gpus, -free.memory_bytes, -free.cpus


def _describe(nodes: Sequence[Node], requests: Mapping[str, Resources] | None) -> str:
    num_ready = sum(node.is_ready for node in nodes)
    shown = sorted(nodes, key=lambda node: (not is_usable(node), *_used_up(node, requests)))[:_NUM_SHOWN]
    parts = [_describe_node(node, requests) for node in shown]
    more = [f"{len(nodes) - len(shown)} more"] if len(nodes) > len(shown) else []
    return f"{num_ready} of {len(nodes)} nodes ready; " + "; ".join([*parts, *more])


def _describe_node(node: Node, requests: Mapping[str, Resources] | None) -> str:
    cpus, memory_gb, gpus = _amounts(_free(node, requests))
    whole = node.allocatable
    troubles = [
        *(["not ready"] if not node.is_ready else []),
        *(["cordoned"] if node.is_cordoned else []),
        *node.pressures,
        *(f"tainted {taint}" for taint in node.taints),
    ]
    what = f"{format_gb(whole.memory_bytes)} and {whole.gpus} GPUs"
    if requests is None:
        room = f"{whole.cpus:g} CPUs, {what} allocatable, what pods request is not known"
    else:
        room = f"free {cpus:g} of {whole.cpus:g} CPUs, {memory_gb:.1f} of {format_gb(whole.memory_bytes)}, "
        room += f"{gpus:g} of {whole.gpus} GPUs"
    trouble = f" ({', '.join(troubles)})" if troubles else ""
    return f"{node.name}{trouble}: {room}"


def _repair(nodes: Sequence[Node]) -> str:
    """The command for the first node of each trouble."""
    parts = []
    if broken := [node.name for node in nodes if not node.is_ready or node.pressures]:
        parts.append(f"see what is wrong with {', '.join(broken)}: kubectl describe node {broken[0]}")
    if cordoned := [node.name for node in nodes if node.is_cordoned]:
        parts.append(f"let pods onto it again: kubectl uncordon {cordoned[0]}")
    tainted = [(node.name, key) for node in nodes for key in node.taints if key != _GPU_TAINT and node.is_ready]
    if tainted:
        name, key = tainted[0]
        parts.append(f"take the taint away: kubectl taint node {name} {key}-")
    return "; ".join(parts)


def _make_room(node: Node, free: Resources, profile: KubernetesProfile) -> str:
    """What is short on the best node, and whether emptying that node would do."""
    names = ("CPUs", "GB of memory", "GPUs")
    short = [
        (bound, name, have, whole)
        for bound, name, have, whole in zip(
            _bounds(profile), names, _amounts(free), _amounts(node.allocatable), strict=True
        )
        if bound.judge(have) is not CheckStatus.PASS
    ]
    wanted = ", ".join(f"{bound.describe(name)} (free {have:.4g})" for bound, name, have, _ in short)
    if all(bound.judge(whole) is CheckStatus.PASS for bound, _, _, whole in short):
        return (
            f"Free {wanted} on {node.name}: scale down what requests it, shown by kubectl get pods "
            f"--all-namespaces --field-selector spec.nodeName={node.name}"
        )
    return f"Add a node with {wanted}: {node.name} has too little even when empty."


def _facts(nodes: Sequence[Node]) -> dict[str, float]:
    total = sum((node.allocatable for node in nodes), Resources())
    return {
        "nodes": len(nodes),
        "nodes_ready": sum(node.is_ready for node in nodes),
        "nodes_usable": sum(is_usable(node) for node in nodes),
        "allocatable_cpus": total.cpus,
        "allocatable_memory_bytes": total.memory_bytes,
        "allocatable_gpus": total.gpus,
    }
