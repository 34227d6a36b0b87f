"""Measured rates of each GPU against what its model is known to reach."""

from __future__ import annotations

from collections.abc import Mapping

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.gpu.each import combine, severity, skip
from engine.environment.gpu.kernel import by_nvml_index
from engine.environment.gpu.known import PCIE_SHARE, KnownCard, find_card, pcie_bytes_per_s
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.profile import GpuProfile
from engine.telemetry.nvml import GpuHealth, GpuInventory

_ESTIMATED = "an estimate, not measured by us"


def judge_bandwidth(
    reading: ProbeReading, inventory: GpuInventory, health: Mapping[str | None, GpuHealth], profile: GpuProfile
) -> Finding:
    """Copies within each device against its model, and to and from the host against its PCIe link (by GPU's uuid)."""
    if reading.error is not None:
        return _untold(reading.error, profile)
    return combine(by_nvml_index(reading, inventory, lambda gpu: _judge_copies(gpu, health.get(gpu.uuid), profile)))


def judge_flops(reading: ProbeReading, inventory: GpuInventory, profile: GpuProfile) -> Finding:
    """Each GPU's matrix product against its model."""
    if reading.error is not None:
        return _untold(reading.error, profile)
    return combine(by_nvml_index(reading, inventory, lambda gpu: _judge_product(gpu, profile)))


def _judge_copies(gpu: ProbedGpu, health: GpuHealth | None, profile: GpuProfile) -> Finding:
    if gpu.error is not None or gpu.device_bytes_per_s is None:
        return _untold(gpu.error or "no rate told", profile)
    card, link = find_card(gpu.name), None if health is None else _link_rate(health)
    to_device, from_device = gpu.to_device_bytes_per_s or 0.0, gpu.from_device_bytes_per_s or 0.0
    observed = [f"{gpu.device_bytes_per_s / 1e12:.2f} TB/s within the device ({_known_bandwidth(card)})"]
    observed.append(f"{to_device / 1e9:.1f} GB/s from pinned host memory, {from_device / 1e9:.1f} GB/s back")
    remedies = []
    if card and gpu.device_bytes_per_s < profile.measured_ratio_min * card.attainable_bytes_per_s:
        remedies.append(_slow_card(gpu, "nvidia-smi -q -d CLOCK,PERFORMANCE"))
    if link is not None:
        observed[1] += f" (link {link / 1e9:.0f} GB/s, attainable about {link * PCIE_SHARE / 1e9:.0f}, an estimate)"
        if min(to_device, from_device) < profile.measured_ratio_min * link * PCIE_SHARE:
            remedies.append(
                "See the check of the PCIe link; bind the process to the GPU's NUMA node (`nvidia-smi topo -m` names "
                "it, `numactl --cpunodebind=N --membind=N`), and look for an IOMMU or a virtual machine in between."
            )
    status = CheckStatus.WARN if remedies else CheckStatus.PASS
    return Finding(status, "; ".join(observed), " ".join(remedies) or None, _copy_facts(gpu))


def _judge_product(gpu: ProbedGpu, profile: GpuProfile) -> Finding:
    if gpu.error is not None or gpu.flops is None:
        return _untold(gpu.error or "no rate told", profile)
    card = find_card(gpu.name)
    observed = f"{gpu.flops / 1e12:.0f} TFLOP/s in {gpu.flops_dtype} ({_known_flops(card)})"
    facts: dict[str, Fact] = {"tflops": _rounded(gpu.flops / 1e12)}
    if card and gpu.flops < profile.measured_ratio_min * card.attainable_flops:
        return Finding(CheckStatus.WARN, observed, _slow_card(gpu, "nvidia-smi -q -d CLOCK,PERFORMANCE,POWER"), facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def _known_bandwidth(card: KnownCard | None) -> str:
    if card is None:
        return "no known figure for this card"
    share = card.attainable_bytes_per_s / card.memory_bytes_per_s
    return (
        f"{card.model}: {card.memory_bytes_per_s / 1e12:.2f} by the datasheet, attainable "
        f"{card.attainable_bytes_per_s / 1e12:.2f}, {_basis(card, share)}"
    )


def _known_flops(card: KnownCard | None) -> str:
    if card is None:
        return "no known figure for this card"
    return (
        f"{card.model}: {card.flops / 1e12:.0f} by the datasheet, attainable {card.attainable_flops / 1e12:.0f}, "
        f"{_basis(card, card.flops_share)}"
    )


def _basis(card: KnownCard, share: float) -> str:
    return "as we measured" if card.is_measured else f"{share:.0%} of it, {_ESTIMATED}"


def _slow_card(gpu: ProbedGpu, command: str) -> str:
    return (
        f"Find what slows {gpu.name or 'the card'}: other processes on it (`nvidia-smi`), its clocks, heat and power "
        f"limit (`{command}`), then the checks of throttling and of memory in use here."
    )


def _link_rate(health: GpuHealth) -> float | None:
    return pcie_bytes_per_s(health.pcie.generation_max, health.pcie.width_max)


def _copy_facts(gpu: ProbedGpu) -> dict[str, Fact]:
    return {
        "device_gb_per_s": _rounded((gpu.device_bytes_per_s or 0) / 1e9),
        "to_device_gb_per_s": _rounded((gpu.to_device_bytes_per_s or 0) / 1e9),
        "from_device_gb_per_s": _rounded((gpu.from_device_bytes_per_s or 0) / 1e9),
    }


def _rounded(value: float) -> float:
    """Two digits: rates differ a little at each run, and that is no change."""
    return float(f"{value:.2g}")


def _untold(error: str, profile: GpuProfile) -> Finding:
    """Not measured. The kernel's check fails for the same reason, unless the card is only full."""
    if "memory are free" in error:
        return skip(error)
    return Finding(
        severity(profile), f"not measured: {error}", "See the check of the kernel, which says what is wrong."
    )
