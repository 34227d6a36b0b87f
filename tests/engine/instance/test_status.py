from __future__ import annotations

import pytest

from engine.errors import InstanceNotReadyError
from engine.instance.reading import InstanceState
from engine.instance.status import Standing, Status, estimate_retry_s
from tests.fakes import FakeClock


@pytest.mark.parametrize(
    ("state", "elapsed_s", "retry_at_s", "expected_s"),
    [
        (InstanceState.LOADING, 0.1, None, 1.0),
        (InstanceState.LOADING, 12.0, None, 12.0),
        (InstanceState.WARMING, 500.0, None, 60.0),
        (InstanceState.FAILED, 5.0, 108.0, 3.0),
        (InstanceState.FAILED, 5.0, 104.0, 0.0),
        (InstanceState.FAILED, 5.0, None, None),
        (InstanceState.DRAINING, 5.0, None, None),
        (InstanceState.STOPPED, 5.0, None, None),
    ],
)
def test_when_another_try_may_go_better(
    state: InstanceState, elapsed_s: float, retry_at_s: float | None, expected_s: float | None
) -> None:
    standing = Standing(state, since_s=100.0, retry_at_s=retry_at_s)
    assert estimate_retry_s(standing, 100.0 + elapsed_s) == expected_s


def test_a_request_that_comes_too_early_is_told_when_to_come() -> None:
    clock = FakeClock()
    status = Status("m", "m", clock)
    status.enter(InstanceState.LOADING)
    clock.advance(4)
    with (
        pytest.raises(InstanceNotReadyError, match="m is loading; try again when it is ready") as refusal,
        status.entering(),
    ):
        pass
    assert refusal.value.retry_after_s == 4.0
