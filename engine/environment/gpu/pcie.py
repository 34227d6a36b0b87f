"""The link between each GPU and the host."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import skip
from engine.telemetry.nvml import GpuHealth


def judge_pcie(gpu: GpuHealth) -> Finding:
    """Fewer lanes than possible warn. A lower generation warns only on a busy GPU: an idle one saves power so."""
    link = gpu.pcie
    if link.width is None or link.generation is None:
        return skip("the driver does not tell the PCIe link")
    observed = (
        f"generation {link.generation} of {_told(link.generation_max)}, {link.width} of {_told(link.width_max)} lanes"
    )
    facts = {"pcie_width": link.width, "pcie_generation_max": link.generation_max}
    remedy = (
        f"Reseat GPU {gpu.index}, check that its slot is a full x{link.width_max} one of generation "
        f"{link.generation_max} in the board's manual and the BIOS, and look for link errors: "
        "`sudo dmesg | grep -i pcie`."
    )
    if link.width_max is not None and link.width < link.width_max:
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if link.generation_max is None or link.generation >= link.generation_max:
        return Finding(CheckStatus.PASS, observed, facts=facts)
    if gpu.utilization_ratio:
        return Finding(CheckStatus.WARN, f"{observed} while busy", remedy, facts)
    return Finding(CheckStatus.PASS, f"{observed}: idle, may be saving power", facts=facts)


def _told(number: int | None) -> str:
    return "not told" if number is None else str(number)
