"""Nodes, what they can give to pods, and what pods have asked of them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from engine.deploy.kubernetes.client import KubernetesClient
from engine.deploy.kubernetes.errors import ClusterRequestError
from engine.deploy.kubernetes.quantity import parse_quantity

GPU = "nvidia.com/gpu"
PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable")
# Labels of the NVIDIA GPU operator's and of node feature discovery: 10de is NVIDIA's PCI vendor id.
_GPU_LABELS = ("nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-10de.present")
_PAGE = 500
MAX_PODS = 2_000
LISTING_LIMIT_S = 4.0


@dataclass(frozen=True)
class Resources:
    """An amount of what a node has and a pod asks for."""

    cpus: float = 0.0
    memory_bytes: int = 0
    gpus: int = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(self.cpus + other.cpus, self.memory_bytes + other.memory_bytes, self.gpus + other.gpus)

    def __sub__(self, other: Resources) -> Resources:
        return Resources(self.cpus - other.cpus, self.memory_bytes - other.memory_bytes, self.gpus - other.gpus)

    def max(self, other: Resources) -> Resources:
        """The larger of each."""
        return Resources(
            max(self.cpus, other.cpus), max(self.memory_bytes, other.memory_bytes), max(self.gpus, other.gpus)
        )


@dataclass(frozen=True)
class Node:
    """`taints` are the keys of those that keep pods away which do not tolerate them; `pressures` are the conditions
    that are wrong besides Ready. `gpus_capacity` counts GPUs that the device plugin reports, unhealthy ones included.
    """

    name: str
    is_ready: bool
    is_cordoned: bool
    allocatable: Resources
    gpus_capacity: int = 0
    has_gpu_label: bool = False
    pressures: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()


def read_nodes(client: KubernetesClient) -> tuple[Node, ...]:
    """Every node, by name; takes 4 s at most, and the time to connect.

    Raises:
        ClusterRequestError: this user may not list nodes (403), or no answer, or not in time.
    """
    items = _list(client, "/api/v1/nodes", time.monotonic() + LISTING_LIMIT_S)
    return tuple(sorted((parse_node(item) for item in items), key=lambda node: node.name))


def read_requests(client: KubernetesClient) -> Mapping[str, Resources] | None:
    """What unfinished pods request on each node, by the node's name; None with more than 2,000 pods, or
    where their listing takes longer than 4 s.

    Raises:
        ClusterRequestError: this user may not list pods of all namespaces (403), or no answer.
    """
    selector = "spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed"
    deadline_s = time.monotonic() + LISTING_LIMIT_S
    requests: dict[str, Resources] = {}
    try:
        for count, pod in enumerate(_list(client, "/api/v1/pods", deadline_s, {"fieldSelector": selector})):
            if count == MAX_PODS:
                return None
            name = str(pod["spec"].get("nodeName"))
            requests[name] = requests.get(name, Resources()) + parse_pod_requests(pod["spec"])
    except ClusterRequestError as error:
        if error.http_status is None and time.monotonic() >= deadline_s:
            return None
        raise
    return requests


def parse_node(item: Mapping[str, Any]) -> Node:
    """A node as the API gives it.

    Raises:
        ValueError: an amount is no quantity.
    """
    metadata, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    conditions = {str(each.get("type")): str(each.get("status")) for each in status.get("conditions") or ()}
    labels = metadata.get("labels") or {}
    return Node(
        name=str(metadata["name"]),
        is_ready=conditions.get("Ready") == "True",
        is_cordoned=bool(spec.get("unschedulable")),
        allocatable=_resources(status.get("allocatable")),
        gpus_capacity=_resources(status.get("capacity")).gpus,
        has_gpu_label=any(labels.get(label) == "true" for label in _GPU_LABELS),
        pressures=tuple(name for name in PRESSURES if conditions.get(name) == "True"),
        taints=tuple(
            str(taint["key"])
            for taint in spec.get("taints") or ()
            if taint.get("effect") in ("NoSchedule", "NoExecute")
        ),
    )


def parse_pod_requests(spec: Mapping[str, Any]) -> Resources:
    """What the scheduler counts for a pod: its containers together with its sidecars, or the largest moment while it
    starts, plus the overhead of its runtime class. Amounts set on the pod itself take the place of its containers'.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers

    Raises:
        ValueError: an amount is no quantity.
    """
    running = _sum(_requests(container) for container in spec.get("containers") or ())
    sidecars, peak = Resources(), Resources()
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            sidecars = sidecars + _requests(container)
            peak = peak.max(sidecars)
        else:
            peak = peak.max(sidecars + _requests(container))
    counted = (running + sidecars).max(peak)
    own = (spec.get("resources") or {}).get("requests") or {}
    whole = _resources(own)
    counted = Resources(
        whole.cpus if "cpu" in own else counted.cpus,
        whole.memory_bytes if "memory" in own else counted.memory_bytes,
        counted.gpus,
    )
    return counted + _resources(spec.get("overhead"))


def _requests(container: Mapping[str, Any]) -> Resources:
    return _resources((container.get("resources") or {}).get("requests"))


def _sum(amounts: Iterable[Resources]) -> Resources:
    return sum(amounts, Resources())


def _resources(amounts: Mapping[str, Any] | None) -> Resources:
    numbers = {name: parse_quantity(value) for name, value in (amounts or {}).items() if name in ("cpu", "memory", GPU)}
    zero = Decimal(0)
    return Resources(float(numbers.get("cpu", zero)), int(numbers.get("memory", zero)), int(numbers.get(GPU, zero)))


def _list(
    client: KubernetesClient, path: str, deadline_s: float, query: Mapping[str, str | int] | None = None
) -> Iterable[Any]:
    """The items of a list, page by page; all pages share the time until the deadline."""
    token = ""
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            message = f"{client.server}{path} did not end its list within {LISTING_LIMIT_S:g} s"
            raise ClusterRequestError(message, "Look at the API server's load and at its etcd.")
        page = client.get(path, {**(query or {}), "limit": _PAGE, **({"continue": token} if token else {})}, left_s)
        yield from page.get("items") or ()
        token = (page.get("metadata") or {}).get("continue") or ""
        if not token:
            return
