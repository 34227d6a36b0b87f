from __future__ import annotations

import pytest

from engine.environment.gpu.known import MEASURED, find_card, pcie_bytes_per_s

NAMES = {
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H200": "H200 SXM",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA GH200 480GB": "GH200 96 GB",
    "NVIDIA GH200 144G HBM3e": "GH200 144 GB",
    "NVIDIA B200": "B200",
    "NVIDIA A100-SXM4-40GB": "A100 40 GB",
    "NVIDIA A100-PCIE-40GB": "A100 40 GB",
    "NVIDIA A100-SXM4-80GB": "A100 80 GB SXM",
    "NVIDIA A100 80GB PCIe": "A100 80 GB PCIe",
    "NVIDIA L40S": "L40S",
    "NVIDIA L40": "L40",
    "NVIDIA L4": "L4",
    "NVIDIA A10": "A10",
    "NVIDIA A10G": "A10G",
    "NVIDIA A40": "A40",
    "NVIDIA A30": "A30",
    "Tesla V100-SXM2-16GB": "V100 SXM2",
    "Tesla V100-PCIE-32GB": "V100 PCIe",
    "Tesla V100S-PCIE-32GB": "V100S PCIe",
    "Tesla T4": "T4",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 3090 Ti": "RTX 3090 Ti",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA GeForce RTX 5090": "RTX 5090",
    "NVIDIA RTX A6000": "RTX A6000",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
}


@pytest.mark.parametrize(("name", "model"), NAMES.items())
def test_names_of_the_driver_find_their_model(name: str, model: str) -> None:
    card = find_card(name)
    assert card is not None
    assert card.model == model
    assert 0.2e12 < card.attainable_bytes_per_s < card.memory_bytes_per_s < 9e12
    assert 20e12 < card.attainable_flops < card.flops < 3000e12
    assert card.is_measured is (model in MEASURED)


@pytest.mark.parametrize(
    "name",
    [
        None,
        "NVIDIA GeForce GTX 1080",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A4000",
        "NVIDIA T400",
    ],
)
def test_others_are_not_known(name: str | None) -> None:
    assert find_card(name) is None


@pytest.mark.parametrize(
    ("name", "flops", "bytes_per_s"),
    [("NVIDIA H200", 707e12, 4.22e12), ("NVIDIA H100 80GB HBM3", 679e12, 3.0e12)],  # medians of three and four runs
)
def test_measured_cards_are_judged_near_what_one_measured(name: str, flops: float, bytes_per_s: float) -> None:
    card = find_card(name)
    assert card is not None
    assert card.is_measured
    assert card.attainable_flops == pytest.approx(flops, rel=0.02)
    assert card.attainable_bytes_per_s == pytest.approx(bytes_per_s, rel=0.02)


def test_links() -> None:
    assert pcie_bytes_per_s(5, 16) == pytest.approx(63e9, rel=0.01)
    assert pcie_bytes_per_s(3, 8) == pytest.approx(7.88e9, rel=0.01)
    assert pcie_bytes_per_s(None, 16) is None
    assert pcie_bytes_per_s(5, None) is None
    assert pcie_bytes_per_s(9, 16) is None
