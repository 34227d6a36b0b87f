from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.memory_errors import judge_ecc, judge_remapped_rows
from engine.telemetry.nvml import EccReading, GpuHealth, RemappedRows

CLEAN = EccReading(True, True, 0, 0, 3, 12)


def test_ecc_without_uncorrected_errors_passes_and_tells_the_corrected() -> None:
    finding = judge_ecc(GpuHealth(0, ecc=CLEAN))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == (
        "ECC on; uncorrected errors 0 since the driver was loaded, 0 over the card's life; corrected 3 and 12"
    )


@pytest.mark.parametrize(
    ("ecc", "is_data_center", "status", "words"),
    [
        (EccReading(True, True, 2, 2, 0, 0), True, CheckStatus.FAIL, "nvidia-smi --gpu-reset -i 4"),
        (EccReading(True, True, 0, 5, 0, 0), True, CheckStatus.WARN, "nvidia-smi -i 4 -p 1"),
        (EccReading(True, False, 0, 0, 0, 0), True, CheckStatus.WARN, "Restart"),
        (EccReading(False, False), True, CheckStatus.WARN, "nvidia-smi -i 4 -e 1"),
        (EccReading(False, False), False, CheckStatus.PASS, ""),
        (EccReading(False, False), None, CheckStatus.PASS, ""),
        (EccReading(), True, CheckStatus.SKIP, ""),
    ],
)
def test_ecc_by_what_was_counted(ecc: EccReading, is_data_center: bool | None, status: CheckStatus, words: str) -> None:
    finding = judge_ecc(GpuHealth(4, ecc=ecc, is_data_center=is_data_center))
    assert finding.status is status
    assert words in (finding.remedy or "")


def test_what_is_not_told_is_not_zero() -> None:
    assert "uncorrected errors not told since" in judge_ecc(GpuHealth(0, ecc=EccReading(True, True))).observed


@pytest.mark.parametrize(
    ("rows", "status", "words"),
    [
        (RemappedRows(0, 0, False, False), CheckStatus.PASS, ""),
        (RemappedRows(1, 2, False, False), CheckStatus.PASS, ""),
        (RemappedRows(0, 1, True, False), CheckStatus.WARN, "--gpu-reset -i 2"),
        (RemappedRows(0, 8, True, True), CheckStatus.FAIL, "Have GPU 2 replaced"),
    ],
)
def test_remapped_rows(rows: RemappedRows, status: CheckStatus, words: str) -> None:
    finding = judge_remapped_rows(GpuHealth(2, remapped_rows=rows))
    assert finding.status is status
    assert words in (finding.remedy or "")
    assert finding.facts["rows_remapped"] == rows.num_correctable + rows.num_uncorrectable


def test_older_cards_retire_pages_instead() -> None:
    assert judge_remapped_rows(GpuHealth(0, is_retirement_pending=False)).status is CheckStatus.PASS
    finding = judge_remapped_rows(GpuHealth(0, is_retirement_pending=True))
    assert finding.status is CheckStatus.WARN
    assert "--gpu-reset -i 0" in (finding.remedy or "")
    assert judge_remapped_rows(GpuHealth(0)).status is CheckStatus.SKIP
