"""What can go wrong on the way to a cluster, each with a remedy."""

from __future__ import annotations

from engine.errors import ConsoleError


class ClusterError(ConsoleError):
    """A cluster cannot be used. `remedy` is a sentence or a command that says what to change."""

    status = 502
    code = "cluster_unavailable"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.remedy = remedy


class NoContextError(ClusterError):
    """No cluster is configured on this machine."""

    code = "no_cluster"


class ClusterConfigError(ClusterError):
    """A kubeconfig is there and cannot be used."""

    code = "invalid_kubeconfig"


class ClusterRequestError(ClusterError):
    """A request got no answer, or one that says no. `http_status` is None where there was no answer."""

    code = "cluster_request_failed"

    def __init__(self, message: str, remedy: str, http_status: int | None = None) -> None:
        super().__init__(message, remedy)
        self.http_status = http_status
