from __future__ import annotations

import pytest

from engine.scheduling.router import Ask, Breaker, Candidate, Cause, Feature
from engine.scheduling.router.capability import why_unable

ASK = Ask("m", num_prompt_tokens=100, max_tokens=50, features=frozenset({Feature.TEXT, Feature.STRUCTURED_OUTPUT}))
ABLE = Candidate("one", context_length=150, features=frozenset(Feature))


def test_nothing_speaks_against_one_that_has_what_is_needed() -> None:
    assert why_unable(ASK, ABLE, 0.0) is None


@pytest.mark.parametrize(
    ("candidate", "cause", "words"),
    [
        (Candidate("x"), Cause.FEATURE, "it has no structured output"),
        (
            Candidate("x", context_length=149, features=frozenset(Feature)),
            Cause.CONTEXT,
            "150 tokens are needed, its context holds 149",
        ),
        (Candidate("x", "", "it is loading", features=frozenset(Feature)), Cause.NOT_READY, "it is loading"),
        (
            Candidate("x", features=frozenset(Feature), breaker=Breaker(1, open_until_s=7.0)),
            Cause.BREAKER,
            "its breaker is open for 7 s more, after 1 failure in a row",
        ),
        (
            Candidate("x", features=frozenset(Feature), breaker=Breaker(3, open_until_s=-1.0, has_trial=True)),
            Cause.BREAKER,
            "its breaker is half-open, and one trial is under way already",
        ),
        (
            Candidate("x", features=frozenset(Feature), num_running=4, num_waiting=2, max_running=4, max_waiting=2),
            Cause.FULL,
            "its queue is full (2 waiting)",
        ),
    ],
)
def test_each_reason_has_its_cause_and_its_numbers(candidate: Candidate, cause: Cause, words: str) -> None:
    assert why_unable(ASK, candidate, 0.0) == (cause, words)


def test_what_is_not_known_speaks_against_nobody() -> None:
    assert why_unable(Ask("m", 10**6), Candidate("x", num_running=99, num_waiting=99), 0.0) is None


def test_an_answer_takes_one_token_at_least() -> None:
    assert why_unable(Ask("m", 150), Candidate("x", context_length=150), 0.0) is not None
    assert why_unable(Ask("m", 149), Candidate("x", context_length=150), 0.0) is None
