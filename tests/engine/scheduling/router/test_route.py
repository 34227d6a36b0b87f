from __future__ import annotations

import pytest

from engine.errors import InvalidRequestError
from engine.scheduling.router import Precision, Route, Target, split_precision

ONE = (Target("one"),)


def test_a_route_that_makes_sense_passes() -> None:
    Route("chat", (Target("one", 90), Target("two", 10)), ("three",), is_weighted=True).check()
    Route("one", (Target("one", 0),)).check()  # an instance's own name; weights do not count here


@pytest.mark.parametrize(
    ("route", "param", "words"),
    [
        (Route(" ", ONE), "name", "give it one without space"),
        (Route("auto", ONE), "name", "have a meaning already"),
        (Route("auto:fast", ONE), "name", "have a meaning already"),
        (Route("chat:fast", ONE), "name", "have a meaning already"),
        (Route("chat", ()), "targets", "choose at least one instance"),
        (Route("chat", (Target("one"), Target("one"))), "targets", "names 'one' twice"),
        (Route("chat", ONE, ("one",)), "targets", "names 'one' twice"),
        (Route("chat", (Target("one", -1),)), "weight", "the weight of 'one' is -1"),
        (Route("chat", (Target("one", float("nan")),)), "weight", "must be a number from 0 up"),
        (Route("chat", (Target("one", 0),), is_weighted=True), "weight", "nothing would answer"),
    ],
)
def test_one_that_does_not_is_refused_by_its_field(route: Route, param: str, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        route.check()
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("chat:fast", ("chat", Precision.FAST)),
        ("org/chat:quality", ("org/chat", Precision.QUALITY)),
        ("chat", ("chat", None)),
        ("chat:latest", ("chat:latest", None)),
        (":fast", (":fast", None)),
    ],
)
def test_the_ending_of_a_name_asks_for_a_precision(model: str, expected: tuple[str, Precision | None]) -> None:
    assert split_precision(model) == expected
