from __future__ import annotations

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.sizes import format_cores, format_size, judge_bytes, wanted
from engine.environment.profile import Bound


def bound(require: float | None = None, recommend: float | None = None) -> Bound:
    return Bound(require=require, recommend=recommend)


def test_bytes_are_judged_in_decimal_gigabytes() -> None:
    assert judge_bytes(2_000_000_000, bound(2)) is CheckStatus.PASS
    assert judge_bytes(1_999_999_999, bound(2)) is CheckStatus.FAIL
    assert judge_bytes(1_999_999_999, bound(None, 2)) is CheckStatus.WARN


@pytest.mark.parametrize(
    ("asked", "number"), [(bound(1, 4), 4), (bound(1), 1), (bound(None, 4), 4), (bound(), 0)], ids=str
)
def test_the_recommendation_is_advised(asked: Bound, number: float) -> None:
    assert wanted(asked) == number


def test_formats() -> None:
    assert (format_size(67_108_864), format_size(12_340_000_000)) == ("67 MB", "12.3 GB")
    assert (format_cores(1), format_cores(1.5), format_cores(8)) == ("1 core", "1.5 cores", "8 cores")
