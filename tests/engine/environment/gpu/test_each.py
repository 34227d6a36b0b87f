from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import combine, judge_each, name_gpus, plural, severity, skip
from engine.environment.profile import Bound, GpuProfile
from engine.telemetry.nvml import GpuHealth

PASSED = Finding(CheckStatus.PASS, "fine", facts={"x": 1})
WARNED = Finding(CheckStatus.WARN, "odd", "do this")


def test_one_gpu_is_told_as_it_is() -> None:
    assert combine({0: PASSED}) == Finding(CheckStatus.PASS, "fine", facts={"gpu0_x": 1})


def test_what_all_share_is_said_once() -> None:
    assert combine(dict.fromkeys(range(8), PASSED)).observed == "each of 8 GPUs: fine"


def test_the_worst_counts_and_names_its_gpus() -> None:
    finding = combine({0: PASSED, 1: WARNED, 2: WARNED})
    assert finding.status is CheckStatus.WARN
    assert finding.observed == "GPU 0: fine; GPU 1, 2: odd"
    assert finding.remedy == "do this"


def test_a_skip_counts_only_where_all_skip() -> None:
    assert combine({0: skip("not told"), 1: PASSED}).status is CheckStatus.PASS
    assert combine({0: skip("not told"), 1: skip("not told")}).status is CheckStatus.SKIP


def test_judging_each_goes_by_the_gpus_own_index() -> None:
    finding = judge_each(
        (GpuHealth(3), GpuHealth(5)), lambda gpu: Finding(CheckStatus.PASS, "ok", facts={"i": gpu.index})
    )
    assert finding.facts == {"gpu3_i": 3, "gpu5_i": 5}


def test_words() -> None:
    assert name_gpus([0, 3]) == "GPU 0, 3"
    assert (plural(1, "GPU"), plural(2, "GPU")) == ("1 GPU", "2 GPUs")


def test_severity_follows_the_profile() -> None:
    needing = GpuProfile(count=Bound(require=1, recommend=None))
    assert severity(needing) is CheckStatus.FAIL
    assert severity(GpuProfile()) is CheckStatus.WARN


@given(st.dictionaries(st.integers(0, 15), st.sampled_from([PASSED, WARNED, skip("no")]), min_size=1))
def test_any_combination_is_a_valid_finding(findings: dict[int, Finding]) -> None:
    finding = combine(findings)
    assert (finding.remedy is None) is (WARNED not in findings.values())
    assert finding.observed
