"""What rollouts do in a cluster: every verb on every resource, and what for."""

from __future__ import annotations

from dataclasses import dataclass

from engine.deploy.kubernetes import Access

GATEWAY = "gateway.networking.k8s.io"


@dataclass(frozen=True)
class Need:
    """Verbs upon one resource and their `reason`. Without those that are optional a rollout still works."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    reason: str
    is_optional: bool = False

    @property
    def accesses(self) -> tuple[Access, ...]:
        """One access a verb."""
        return tuple(Access(self.group, self.resource, verb) for verb in self.verbs)


_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch", "delete")

NEEDS = (
    Need("apps", "deployments", _READ + _WRITE, "each revision of a model is one Deployment"),
    Need("apps", "deployments/scale", ("get", "update", "patch"), "a canary grows and the old revision shrinks"),
    Need("apps", "replicasets", _READ, "which pods belong to which revision"),
    Need("", "pods", _READ, "is a revision ready, and which pod is not"),
    Need("", "pods", ("delete",), "a replica that hangs is replaced", is_optional=True),
    Need("", "pods/log", ("get",), "why a pod did not come up"),
    Need("", "services", ("get", "list", *_WRITE), "blue-green switches the Service's selector"),
    Need("", "configmaps", ("get", *_WRITE), "a revision's settings"),
    Need("", "secrets", ("get", *_WRITE), "API keys and registry credentials of a revision"),
    Need("", "events", ("list",), "why a pod is not scheduled", is_optional=True),
    Need("", "namespaces", ("get",), "does the namespace exist", is_optional=True),
    Need(
        "autoscaling",
        "horizontalpodautoscalers",
        ("get", "create", "patch", "delete"),
        "replicas follow the load",
        is_optional=True,
    ),
    Need(
        "policy",
        "poddisruptionbudgets",
        ("get", "create", "patch", "delete"),
        "draining a node leaves replicas up",
        is_optional=True,
    ),
)

GATEWAY_NEEDS = (
    Need(
        GATEWAY, "httproutes", ("get", "create", "patch", "delete"), "a canary's share of the traffic", is_optional=True
    ),
)
