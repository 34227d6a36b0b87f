from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.mig import judge_mig
from engine.telemetry.nvml import GpuHealth, MigReading


@pytest.mark.parametrize(
    ("mig", "status", "words"),
    [
        (MigReading(False, False, 0), CheckStatus.PASS, ""),
        (MigReading(True, True, 3), CheckStatus.WARN, "CUDA_VISIBLE_DEVICES=MIG-"),
        (MigReading(True, True, 0), CheckStatus.WARN, "mig -i 1 -cgi"),
        (MigReading(False, True, 0), CheckStatus.WARN, "--gpu-reset -i 1"),
        (MigReading(True, False, 2), CheckStatus.WARN, "--gpu-reset -i 1"),
        (None, CheckStatus.SKIP, ""),
    ],
)
def test_instances(mig: MigReading | None, status: CheckStatus, words: str) -> None:
    finding = judge_mig(GpuHealth(1, mig=mig))
    assert finding.status is status
    assert words in (finding.remedy or "")


def test_the_number_of_instances_is_told() -> None:
    assert (
        "MIG is on with 1 instance: torch sees one" in judge_mig(GpuHealth(0, mig=MigReading(True, True, 1))).observed
    )
