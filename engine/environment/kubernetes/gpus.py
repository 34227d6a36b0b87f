"""Can pods have the GPUs that the nodes have."""

from __future__ import annotations

from collections.abc import Sequence

from engine.deploy.kubernetes import ClusterRequestError, Node
from engine.environment.check import CheckStatus, Finding, worst
from engine.environment.kubernetes.cluster import Cluster
from engine.environment.profile import KubernetesProfile

INSTALL_GPU_OPERATOR = (
    "Install NVIDIA's GPU operator: helm repo add nvidia https://helm.ngc.nvidia.com/nvidia && helm install "
    "gpu-operator nvidia/gpu-operator --namespace gpu-operator --create-namespace --wait"
)


def check_gpus(cluster: Cluster, profile: KubernetesProfile) -> Finding:
    """Look at the same list of nodes."""
    try:
        return judge_gpus(cluster.nodes(), profile)
    except ClusterRequestError as error:
        if error.http_status != 403:
            raise
        return Finding(CheckStatus.SKIP, "this user may not list nodes, see kubernetes.nodes")


def judge_gpus(nodes: Sequence[Node], profile: KubernetesProfile) -> Finding:
    """Warn about GPUs that a node has and cannot give; whether a node's GPUs are free is for `judge_nodes`."""
    num_allocatable = sum(node.allocatable.gpus for node in nodes)
    facts = {"allocatable_gpus": num_allocatable, "gpus": sum(node.gpus_capacity for node in nodes)}
    hidden = [node.name for node in nodes if node.has_gpu_label and not node.gpus_capacity]
    sick = [node for node in nodes if node.allocatable.gpus < node.gpus_capacity]
    most = max((node.allocatable.gpus for node in nodes), default=0)
    status = profile.gpus.judge(most)
    if hidden:
        observed = f"{', '.join(hidden)}: an NVIDIA device is in the machine and no pod can have it"
        return Finding(worst((status, CheckStatus.WARN)), observed, INSTALL_GPU_OPERATOR, facts)
    if sick:
        parts = [f"{node.name}: {node.allocatable.gpus} of {node.gpus_capacity} GPUs are healthy" for node in sick]
        remedy = f"Read nvidia-smi and the kernel's log (dmesg | grep -i xid) on {sick[0].name}; drain and restart it."
        return Finding(worst((status, CheckStatus.WARN)), "; ".join(parts), remedy, facts)
    if num_allocatable == 0:
        observed = "no node offers nvidia.com/gpu"
        if status is CheckStatus.PASS:
            return Finding(CheckStatus.SKIP, f"{observed}, and the profile asks for none", facts=facts)
        return Finding(status, observed, f"Add a node with a GPU. {INSTALL_GPU_OPERATOR}", facts)
    observed = f"{num_allocatable} GPUs in the cluster, at most {most} on one node"
    if status is not CheckStatus.PASS:
        return Finding(status, observed, f"Add a node with GPUs: {profile.gpus.describe()}.", facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)
