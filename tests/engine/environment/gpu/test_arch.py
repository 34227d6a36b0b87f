from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.gpu.arch import find_code, judge_arch
from engine.environment.gpu.probing import ProbedGpu, ProbeReading
from engine.environment.profile import Bound, GpuProfile

BUILD = ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120")
NEEDED = GpuProfile(count=Bound(require=1, recommend=None))


@pytest.mark.parametrize(
    ("capability", "code"),
    [
        ((9, 0), "sm_90"),
        ((8, 0), "sm_80"),
        ((8, 9), "sm_86"),  # machine code of an earlier minor version
        ((8, 6), "sm_86"),
        ((10, 3), "sm_100"),
        ((12, 1), "sm_120"),
        ((13, 0), "compute_120"),  # PTX for a later card
        ((11, 0), None),
        ((7, 0), None),
        ((6, 1), None),
    ],
)
def test_code_runs_within_its_major_version_and_ptx_beyond(capability: tuple[int, int], code: str | None) -> None:
    assert find_code(capability, BUILD) == code


@pytest.mark.parametrize(
    ("entry", "capability", "does_run"),
    [
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("compute_90a", (10, 0), False),
        ("compute_100f", (12, 0), False),
        ("gfx942", (9, 0), False),
    ],
)
def test_suffixes_narrow_it(entry: str, capability: tuple[int, int], does_run: bool) -> None:
    assert (find_code(capability, [entry]) is not None) is does_run


def reading(*capabilities: tuple[int, int] | None) -> ProbeReading:
    gpus = tuple(ProbedGpu(index, capability=capability) for index, capability in enumerate(capabilities))
    return ProbeReading(gpus, BUILD)


def test_a_card_with_code_passes() -> None:
    finding = judge_arch(reading((9, 0)), NEEDED)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "compute capability 9.0 runs torch's sm_90")
    assert finding.facts == {"gpu0_torch_code": "sm_90"}
    assert judge_arch(reading((13, 0)), NEEDED).observed.endswith("compute_120, compiled by the driver at first use")


def test_a_card_without_code_fails_with_the_right_direction() -> None:
    old = judge_arch(reading((9, 0), (6, 1)), NEEDED)
    assert old.status is CheckStatus.FAIL
    assert "GPU 1: compute capability 6.1, and torch has code for sm_75" in old.observed
    assert "an older torch" in (old.remedy or "")
    new = judge_arch(reading((11, 0)), GpuProfile())
    assert new.status is CheckStatus.WARN
    assert "a newer torch" in (new.remedy or "")


def test_what_was_not_told_skips() -> None:
    assert judge_arch(ProbeReading(error="the probe hung"), NEEDED).status is CheckStatus.SKIP
    assert judge_arch(ProbeReading((), BUILD, error="no GPU"), NEEDED).status is CheckStatus.SKIP
    assert judge_arch(reading(None), NEEDED).status is CheckStatus.SKIP
