"""The one door to Kubernetes: which cluster, requests to it, and what it says as plain data.

The client library is imported when a cluster is opened, so a machine without a context pays nothing for it.
"""

from __future__ import annotations

from engine.deploy.kubernetes.access import Access, Review, build_grant, name_user, review_access
from engine.deploy.kubernetes.client import KubernetesClient, open_client
from engine.deploy.kubernetes.discovery import Discovery, read_discovery, read_namespace_phase, read_resources
from engine.deploy.kubernetes.errors import ClusterConfigError, ClusterError, ClusterRequestError, NoContextError
from engine.deploy.kubernetes.kubeconfig import Connection, find_connection
from engine.deploy.kubernetes.nodes import Node, Resources, read_nodes, read_requests
from engine.deploy.kubernetes.quantity import parse_quantity

__all__ = [
    "Access",
    "ClusterConfigError",
    "ClusterError",
    "ClusterRequestError",
    "Connection",
    "Discovery",
    "KubernetesClient",
    "NoContextError",
    "Node",
    "Resources",
    "Review",
    "build_grant",
    "find_connection",
    "name_user",
    "open_client",
    "parse_quantity",
    "read_discovery",
    "read_namespace_phase",
    "read_nodes",
    "read_requests",
    "read_resources",
    "review_access",
]
