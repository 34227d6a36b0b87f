"""How the GPUs of one host are linked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.gpu.each import name_gpus, plural, skip
from engine.telemetry.nvml import GpuHealth, GpuPair, Topology


def judge_topology(topology: Topology, gpus: Iterable[GpuHealth]) -> Finding:
    """Tell the links between every two GPUs; warn where one GPU is linked worse than others of its model."""
    if topology.reason is not None:
        return skip(topology.reason)
    if topology.num_gpus < 2:
        return skip("one GPU only, so there is no link to tell")
    observed = describe_pairs(topology)
    facts: dict[str, Fact] = {f"pair_{pair.first}_{pair.second}": _how(pair) for pair in topology.pairs}
    uneven = find_uneven(gpus) or find_apart(topology)
    if uneven is None:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    remedy = (
        "See `nvidia-smi nvlink -s` for the links that are down; start Fabric Manager where there are NVSwitches "
        "(`sudo systemctl restart nvidia-fabricmanager`), reseat NVLink bridges, restart."
    )
    return Finding(CheckStatus.WARN, f"{observed}; {uneven}", remedy, facts)


def describe_pairs(topology: Topology) -> str:
    """`NVLink between all 8`, or which pairs go which way."""
    by_way: dict[str, list[GpuPair]] = {}
    for pair in topology.pairs:
        by_way.setdefault(_how(pair), []).append(pair)
    if len(by_way) == 1:
        way = next(iter(by_way))
        return f"{way} between all {topology.num_gpus}" if topology.num_gpus > 2 else f"{way} between GPU 0 and 1"
    return "; ".join(f"{way}: {', '.join(f'{p.first}-{p.second}' for p in pairs)}" for way, pairs in by_way.items())


def find_uneven(gpus: Iterable[GpuHealth]) -> str | None:
    """GPUs with fewer active NVLinks than others of the same name."""
    best: Counter[str] = Counter()
    known = [gpu for gpu in gpus if gpu.name is not None and gpu.num_nvlinks]
    for gpu in known:
        best[str(gpu.name)] = max(best[str(gpu.name)], gpu.num_nvlinks_active)
    worse = [gpu for gpu in known if gpu.num_nvlinks_active < best[str(gpu.name)]]
    said = [f"GPU {gpu.index} has {gpu.num_nvlinks_active} of {plural(best[str(gpu.name)], 'NVLink')}" for gpu in worse]
    return ", ".join(said) + " active" if said else None


def find_apart(topology: Topology) -> str | None:
    """GPUs that reach no other over NVLink although some do."""
    linked = {gpu for pair in topology.pairs if pair.has_nvlink for gpu in (pair.first, pair.second)}
    apart = [index for index in range(topology.num_gpus) if index not in linked]
    return f"{name_gpus(apart)} reaches no other over NVLink" if linked and apart else None


def _how(pair: GpuPair) -> str:
    if pair.has_nvlink:
        return "NVLink"
    return "a way that is not told" if pair.path is None else f"only through {pair.path}"
