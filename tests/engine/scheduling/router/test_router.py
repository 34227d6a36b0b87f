from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.router import (
    Ask,
    Breaker,
    Candidate,
    Cause,
    Decision,
    Feature,
    History,
    Precision,
    Route,
    Target,
    route,
)
from engine.scheduling.router.capability import why_unable

NAMES = ("a", "b", "c", "d")
ANY = Route("any", tuple(Target(name) for name in NAMES))


def candidates(**changes: dict[str, object]) -> list[Candidate]:
    return [replace(Candidate(name), **changes.get(name, {})) for name in NAMES]


def causes(decision: Decision) -> dict[str, Cause | None]:
    return {verdict.instance: verdict.cause for verdict in decision.verdicts}


def test_the_least_busy_one_answers() -> None:
    decision = route(Ask("any"), candidates(a={"num_running": 9}, b={"num_running": 9}, d={"num_waiting": 3}), ANY, 0.0)
    assert (decision.instance, decision.reason) == ("c", "the lowest cost")
    assert {verdict.instance: verdict.reason for verdict in decision.verdicts}["c"] == "chosen"


def test_requests_are_spread_over_equals() -> None:
    chosen = Counter(route(Ask("any", key=str(number)), candidates(), ANY, 0.0).instance for number in range(400))
    assert set(chosen) == set(NAMES)
    assert min(chosen.values()) > 60


def test_an_instance_that_was_tried_or_is_gone_is_out() -> None:
    by = Route("any", (Target("a"), Target("b"), Target("gone")))
    decision = route(Ask("any"), candidates(), by, 0.0, History(failed={"a": "it broke"}))
    assert decision.instance == "b"
    assert causes(decision) == {"a": Cause.TRIED, "b": None, "gone": Cause.MISSING}
    assert decision.verdicts[0].reason == "it was tried: it broke"


def test_fallbacks_are_asked_in_their_order_and_only_then() -> None:
    by = Route("chat", (Target("a"),), ("b", "c"))
    down = {"why_not_ready": "it is failed"}
    assert route(Ask("chat"), candidates(), by, 0.0).instance == "a"
    first = route(Ask("chat"), candidates(a=down), by, 0.0)
    assert (first.instance, first.reason) == ("b", "fallback 1, as none before it can answer")
    assert route(Ask("chat"), candidates(a=down, b=down), by, 0.0).instance == "c"
    nobody = route(Ask("chat"), candidates(a=down, b=down, c=down), by, 0.0)
    assert (nobody.instance, nobody.reason) == (None, "no instance of 'chat' can answer now")


def test_a_conversation_stays_while_its_instance_can_answer() -> None:
    history = History(stays_with="b")
    busy = candidates(b={"num_waiting": 50})
    assert route(Ask("any"), busy, ANY, 0.0, history).instance == "b"
    assert route(Ask("any"), busy, replace(ANY, is_sticky=False), 0.0, history).instance != "b"
    assert route(Ask("any"), candidates(b={"why_not_ready": "it is failed"}), ANY, 0.0, history).instance != "b"


def test_a_conversation_comes_back_from_a_fallback() -> None:
    by = Route("chat", (Target("a"),), ("b",))
    assert route(Ask("chat"), candidates(), by, 0.0, History(stays_with="b")).instance == "a"


def test_precision_picks_among_those_that_can_answer() -> None:
    bits = {"a": {"bits_per_weight": 16.0}, "b": {"bits_per_weight": 8.0}, "c": {"bits_per_weight": 4.5}}
    asked = {one: route(Ask("any", precision=one), candidates(**bits), ANY, 0.0) for one in Precision}
    assert [decision.instance for decision in asked.values()] == ["a", "b", "c"]
    assert asked[Precision.FAST].reason == "nearest to fast"
    reasons = {verdict.instance: verdict.reason for verdict in asked[Precision.FAST].verdicts}
    assert reasons["a"] == "can answer, but is further from fast"
    bits["c"]["why_not_ready"] = "it is loading"
    assert route(Ask("any", precision=Precision.FAST), candidates(**bits), ANY, 0.0).instance == "b"


def test_a_cached_prompt_decides_between_equals() -> None:
    decision = route(Ask("any"), candidates(), ANY, 0.0, History(cached_shares={"c": 0.8}))
    assert decision.instance == "c"


def test_weights_hold_in_the_long_run_and_weight_zero_is_out() -> None:
    by = Route("chat", (Target("a", 80), Target("b", 20), Target("c", 0)), is_weighted=True)
    decisions = [route(Ask("chat", key=str(number)), candidates(), by, 0.0) for number in range(3_000)]
    chosen = Counter(decision.instance for decision in decisions)
    assert abs(chosen["b"] / 3_000 - 0.2) < 0.04
    assert set(chosen) == {"a", "b"}
    assert causes(decisions[0])["c"] is Cause.WEIGHT
    assert "by weight" in decisions[0].reason


def test_the_weights_of_those_that_can_answer_are_what_counts() -> None:
    by = Route("chat", (Target("a", 98), Target("b", 1), Target("c", 1)), is_weighted=True)
    down = candidates(a={"why_not_ready": "it is failed"})
    chosen = Counter(route(Ask("chat", key=str(number)), down, by, 0.0).instance for number in range(1_000))
    assert abs(chosen["b"] - 500) < 80


CANDIDATE = st.builds(
    Candidate,
    name=st.sampled_from(NAMES),
    why_not_ready=st.sampled_from([None, None, "it is loading"]),
    context_length=st.sampled_from([None, 100, 4_000]),
    features=st.frozensets(st.sampled_from(Feature)),
    bits_per_weight=st.sampled_from([None, 4.5, 8.0, 16.0]),
    num_running=st.integers(0, 5),
    num_waiting=st.integers(0, 5),
    max_running=st.sampled_from([None, 4]),
    max_waiting=st.sampled_from([None, 0, 4]),
    kv_used=st.none() | st.floats(0, 1),
    ttft_p95_s=st.none() | st.floats(0.001, 10),
    breaker=st.builds(Breaker, st.just(3), st.none() | st.floats(-10, 10), st.just(5.0), st.booleans()),
)
ASK = st.builds(
    Ask,
    model=st.just("any"),
    num_prompt_tokens=st.integers(0, 5_000),
    max_tokens=st.none() | st.integers(1, 5_000),
    features=st.frozensets(st.sampled_from(Feature)),
    precision=st.none() | st.sampled_from(Precision),
    key=st.text(max_size=5),
)
ROUTE = st.builds(
    Route,
    name=st.just("any"),
    targets=st.lists(
        st.builds(Target, st.sampled_from(NAMES[:3]), st.sampled_from([0.0, 1.0, 9.0])),
        min_size=1,
        unique_by=lambda target: target.instance,
    ).map(tuple),
    fallbacks=st.sampled_from([(), ("d",)]),
    is_weighted=st.booleans(),
    is_sticky=st.booleans(),
)
HISTORY = st.builds(
    History,
    stays_with=st.none() | st.sampled_from(NAMES),
    cached_shares=st.dictionaries(st.sampled_from(NAMES), st.floats(0, 1)),
    failed=st.dictionaries(st.sampled_from(NAMES), st.just("it broke"), max_size=2),
)
PRESENT = st.lists(CANDIDATE, max_size=4, unique_by=lambda candidate: candidate.name)


@given(ASK, PRESENT, ROUTE, HISTORY)
def test_never_one_that_cannot_serve_and_always_one_that_can(
    ask: Ask, present: list[Candidate], by: Route, history: History
) -> None:
    decision = route(ask, present, by, 0.0, history)
    weightless = {target.instance for target in by.targets if target.weight == 0} if by.is_weighted else set()
    able = {
        one.name
        for one in present
        if one.name in by.members
        and one.name not in history.failed
        and one.name not in weightless
        and why_unable(ask, one, 0.0) is None
    }
    assert (decision.instance is None) == (not able)
    assert decision.instance is None or decision.instance in able
    assert {verdict.instance for verdict in decision.verdicts} == set(by.members)
    assert {verdict.instance for verdict in decision.verdicts if verdict.is_able} == able
    assert all(verdict.reason for verdict in decision.verdicts)


@given(ASK, PRESENT, ROUTE, HISTORY)
def test_sticky_stays_sticky_while_healthy(ask: Ask, present: list[Candidate], by: Route, history: History) -> None:
    """However idle the others become. A wish for a precision comes first, so there is none here."""
    ask, by = replace(ask, precision=None), replace(by, is_sticky=True)
    first = route(ask, present, by, 0.0, history).instance
    idle = [one if one.name == first else replace(one, num_waiting=0, num_running=0) for one in present]
    again = route(ask, idle, by, 0.0, replace(history, stays_with=first)).instance
    if any(target.instance == first for target in by.targets):
        assert again == first
