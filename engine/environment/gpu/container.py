"""Does this process run in a container, and how a GPU is given to one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path


class Container(StrEnum):
    """What the process runs in."""

    NONE = "no container"
    ENGINE = "a container"
    POD = "a Kubernetes pod"


GIVE_GPU = {
    Container.ENGINE: (
        "Start the container with the host's GPUs: install the NVIDIA Container Toolkit on the host, then "
        "`docker run --gpus all ...`."
    ),
    Container.POD: (
        "Ask for a GPU in the pod's container: `resources: {limits: {nvidia.com/gpu: 1}}`, on a cluster that runs "
        "NVIDIA's device plugin."
    ),
}


def read_container(root: Path) -> Container:
    """Told by the marks that Docker, Podman and Kubernetes leave in the file system."""
    if (root / "var/run/secrets/kubernetes.io").exists():
        return Container.POD
    marks = (root / ".dockerenv", root / "run/.containerenv")
    return Container.ENGINE if any(mark.exists() for mark in marks) else Container.NONE
