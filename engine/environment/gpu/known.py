"""What a healthy card of each model reaches: its datasheet's peaks, and what a measurement gets of them.

Peaks are dense, without sparsity, from NVIDIA's product pages and datasheets: https://www.nvidia.com/en-us/data-center/
with h100, h200, grace-hopper-superchip, dgx-b200, a100, l40s, l40, l4, a40, a30-tensor-core-gpu, v100, tesla-t4 and
products/a10-gpu; https://www.nvidia.com/en-us/design-visualization/ with rtx-a6000 and rtx-6000; for GeForce cards the
architecture whitepapers' product of bfloat16 with accumulation in float32. Where a datasheet gives rates with sparsity
only, half of them is dense.

No card reaches its peak in a long matrix product: the power limit lowers the clock. So a measurement is judged against
the share that is attainable. `MEASURED` shares were measured by us with the probe beside this module; the others are
estimates, lower for cards whose power limit is low for their arithmetic, and the finding says so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TERA = 1e12
GIGA = 1e9


@dataclass(frozen=True)
class KnownCard:
    """A card model. Shares are of the peaks; `is_measured` says that we measured them."""

    model: str
    memory_bytes_per_s: float
    flops: float
    memory_share: float
    flops_share: float
    is_measured: bool = False

    @property
    def attainable_bytes_per_s(self) -> float:
        """What a copy within the device reaches."""
        return self.memory_bytes_per_s * self.memory_share

    @property
    def attainable_flops(self) -> float:
        """What a large matrix product in bfloat16 (float16 on cards without it) reaches."""
        return self.flops * self.flops_share


# The name as NVML gives it, TB/s, dense TFLOP/s, attainable shares of both. The first pattern that is found counts.
_ROWS: tuple[tuple[str, str, float, float, float, float], ...] = (
    (r"GH200.*144G", "GH200 144 GB", 4.9, 990, 0.85, 0.7),
    (r"GH200", "GH200 96 GB", 4.0, 990, 0.85, 0.7),
    (r"H200 NVL", "H200 NVL", 4.8, 835, 0.85, 0.65),
    (r"H200", "H200 SXM", 4.8, 989, 0.88, 0.71),
    (r"H100 NVL", "H100 NVL", 3.9, 835, 0.85, 0.65),
    (r"H100 PCIe", "H100 PCIe", 2.0, 756, 0.85, 0.6),
    (r"H100", "H100 SXM", 3.35, 989, 0.9, 0.69),
    (r"\bB200", "B200", 7.7, 2250, 0.85, 0.7),
    (r"A100-SXM4-80GB", "A100 80 GB SXM", 2.039, 312, 0.85, 0.75),
    (r"A100 80GB PCIe", "A100 80 GB PCIe", 1.935, 312, 0.85, 0.7),
    (r"A100.*40GB", "A100 40 GB", 1.555, 312, 0.85, 0.7),
    (r"L40S", "L40S", 0.864, 362, 0.85, 0.6),
    (r"L40\b", "L40", 0.864, 181, 0.85, 0.65),
    (r"L4\b", "L4", 0.3, 121, 0.85, 0.45),
    (r"A10G", "A10G", 0.6, 70, 0.85, 0.65),
    (r"A10\b", "A10", 0.6, 125, 0.85, 0.5),
    (r"A40\b", "A40", 0.696, 149.7, 0.85, 0.65),
    (r"A30\b", "A30", 0.933, 165, 0.85, 0.65),
    (r"V100S", "V100S PCIe", 1.134, 130, 0.85, 0.65),
    (r"V100-SXM2", "V100 SXM2", 0.9, 125, 0.85, 0.7),
    (r"V100-PCIE", "V100 PCIe", 0.9, 112, 0.85, 0.7),
    (r"\bT4\b", "T4", 0.32, 65, 0.75, 0.4),
    (r"RTX 3090 Ti", "RTX 3090 Ti", 1.008, 80, 0.85, 0.75),
    (r"RTX 3090", "RTX 3090", 0.936, 71, 0.85, 0.75),
    (r"RTX 4090$", "RTX 4090", 1.008, 165.2, 0.85, 0.8),
    (r"RTX 5090$", "RTX 5090", 1.792, 209.5, 0.85, 0.8),
    (r"RTX A6000", "RTX A6000", 0.768, 154.8, 0.85, 0.65),
    (r"RTX 6000 Ada", "RTX 6000 Ada", 0.96, 364.2, 0.85, 0.6),
)
MEASURED = frozenset({"H100 SXM", "H200 SXM"})

# GB/s of one PCIe lane and direction after line coding, generations 1 to 6 (PCI-SIG, https://pcisig.com/specifications).
_LANE_GB_PER_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
PCIE_SHARE = 0.8  # packet headers and flow control take the rest; an estimate


def find_card(name: str | None) -> KnownCard | None:
    """The card of that NVML name; None for one that is not in the table, and for a part of a card (MIG, vGPU)."""
    if name is None or "MIG" in name or "Laptop" in name or re.search(r"-\d+[ABCQ]\b", name):
        return None
    for pattern, model, memory, arithmetic, memory_share, flops_share in _ROWS:
        if re.search(pattern, name):
            is_measured = model in MEASURED
            return KnownCard(model, memory * TERA, arithmetic * TERA, memory_share, flops_share, is_measured)
    return None


def pcie_bytes_per_s(generation: int | None, width: int | None) -> float | None:
    """The rate of a PCIe link in one direction; None where either is not told."""
    if generation is None or width is None or generation not in _LANE_GB_PER_S:
        return None
    return _LANE_GB_PER_S[generation] * width * GIGA
