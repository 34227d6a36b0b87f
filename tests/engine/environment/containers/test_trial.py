from __future__ import annotations

import pytest

from engine.deploy.trial import Trial, TrialOutcome
from engine.environment.check import CheckStatus
from engine.environment.containers.trial import judge_trial
from engine.environment.profile import ContainersProfile

ANY, REQUIRED = ContainersProfile(), ContainersProfile(required=True)


def test_a_container_that_ran_passes() -> None:
    finding = judge_trial(Trial(TrialOutcome.RAN, "busybox:1"), REQUIRED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "`true` ran in busybox:1 (--network none --read-only --memory 64m)"


def test_an_image_without_the_command_passes_and_says_so() -> None:
    finding = judge_trial(Trial(TrialOutcome.NO_COMMAND, "pause:1", "not found"), REQUIRED)
    assert (finding.status, finding.observed) == (
        CheckStatus.PASS,
        "the runtime works; pause:1 has no `true` to run",
    )


def test_no_image_is_a_skip() -> None:
    finding = judge_trial(Trial(TrialOutcome.NO_IMAGE), REQUIRED)
    assert finding.status is CheckStatus.SKIP
    assert "none is pulled" in finding.observed


@pytest.mark.parametrize(("profile", "status"), [(ANY, CheckStatus.WARN), (REQUIRED, CheckStatus.FAIL)])
def test_one_that_does_not_start_is_told_with_a_command_to_repeat_it(
    profile: ContainersProfile, status: CheckStatus
) -> None:
    finding = judge_trial(Trial(TrialOutcome.FAILED, "busybox:1", "cgroup is read-only"), profile)
    assert (finding.status, finding.observed) == (status, "busybox:1: cgroup is read-only")
    assert "docker run --rm --network none --read-only --memory 64m --entrypoint true busybox:1" in (
        finding.remedy or ""
    )


def test_a_call_that_failed_before_there_was_an_image() -> None:
    finding = judge_trial(Trial(TrialOutcome.FAILED, detail="timed out"), ANY)
    assert finding.observed == "the engine: timed out"
