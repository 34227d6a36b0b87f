"""What a cluster offers: its version and its API groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.clock import Clock, SystemClock
from engine.deploy.kubernetes.client import KubernetesClient
from engine.deploy.kubernetes.errors import ClusterRequestError


@dataclass(frozen=True)
class Discovery:
    """`version` is the server's own text (`v1.20.2`), `minor` its number; None where the text has none.

    `groups` are the versions of each API group, the server's preferred one first. `latency_s` is how long the first
    request took, with connecting and TLS.
    """

    version: str
    minor: int | None
    latency_s: float
    groups: Mapping[str, tuple[str, ...]]

    def has(self, group: str, version: str) -> bool:
        """Does the server speak `group/version`."""
        return version in self.groups.get(group, ())


def read_discovery(client: KubernetesClient, clock: Clock | None = None) -> Discovery:
    """Two requests.

    Raises:
        ClusterRequestError: the server does not answer, or refuses the credentials.
    """
    clock = clock or SystemClock()
    began_s = clock.monotonic()
    version = client.get("/version")
    latency_s = clock.monotonic() - began_s
    text = str(version.get("gitVersion", ""))
    minor = re.match(r"v?1\.(\d+)", text)
    groups = {
        str(group["name"]): _preferred_first(group)
        for group in client.get("/apis").get("groups") or ()
        if "name" in group
    }
    return Discovery(text, int(minor[1]) if minor else None, latency_s, groups)


def read_resources(client: KubernetesClient, group: str, version: str) -> frozenset[str] | None:
    """The resources of one API; None where it is registered and what serves it does not answer, or is gone.

    Raises:
        ClusterRequestError: it cannot be told for another reason.
    """
    try:
        found = client.get(f"/apis/{group}/{version}")
    except ClusterRequestError as error:
        if error.http_status in (404, 503):
            return None
        raise
    return frozenset(str(resource["name"]) for resource in found.get("resources") or ())


def read_namespace_phase(client: KubernetesClient, namespace: str) -> str | None:
    """`Active` or `Terminating`; None where there is no such namespace.

    Raises:
        ClusterRequestError: this user may not look (403), or no answer.
    """
    try:
        found = client.get(f"/api/v1/namespaces/{namespace}")
    except ClusterRequestError as error:
        if error.http_status == 404:
            return None
        raise
    return str((found.get("status") or {}).get("phase") or "Active")


def _preferred_first(group: Mapping[str, object]) -> tuple[str, ...]:
    listed = group.get("versions")
    names = [str(item["version"]) for item in listed] if isinstance(listed, list) else []
    preferred = group.get("preferredVersion")
    first = preferred.get("version") if isinstance(preferred, dict) else None
    return tuple(sorted(names, key=lambda name: name != first))
