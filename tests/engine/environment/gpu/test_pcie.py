from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.pcie import judge_pcie
from engine.telemetry.nvml import GpuHealth, PcieReading


@pytest.mark.parametrize(
    ("link", "busy", "status", "words"),
    [
        (PcieReading(5, 5, 16, 16), 0.0, CheckStatus.PASS, "generation 5 of 5, 16 of 16 lanes"),
        (PcieReading(1, 5, 16, 16), 0.0, CheckStatus.PASS, "idle, may be saving power"),
        (PcieReading(1, 5, 16, 16), None, CheckStatus.PASS, "idle, may be saving power"),
        (PcieReading(3, 5, 16, 16), 0.9, CheckStatus.WARN, "while busy"),
        (PcieReading(5, 5, 8, 16), 0.0, CheckStatus.WARN, "8 of 16 lanes"),
        (PcieReading(4, None, 16, None), 0.5, CheckStatus.PASS, "generation 4 of not told"),
        (PcieReading(), 0.5, CheckStatus.SKIP, "does not tell"),
    ],
)
def test_the_link(link: PcieReading, busy: float | None, status: CheckStatus, words: str) -> None:
    finding = judge_pcie(GpuHealth(6, pcie=link, utilization_ratio=busy))
    assert finding.status is status
    assert words in finding.observed
    assert ("Reseat GPU 6" in (finding.remedy or "")) is (status is CheckStatus.WARN)
