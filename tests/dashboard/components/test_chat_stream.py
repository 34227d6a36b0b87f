"""A lane's answer on an engine of fakes: what is taken, what is kept, what closing does."""

from __future__ import annotations

import pytest

from dashboard.components.chat_stream import LiveAnswer, restore_parameters, shown_parameters
from dashboard.components.parameters import Lane
from engine import Console, Message, SamplingParams
from tests.fakes import FakeBackend, wait_until
from tests.pages.conftest import backend, console, load  # noqa: F401

_ASKED = [Message("user", "capital of France?")]


def finish(live: LiveAnswer) -> None:
    def is_done() -> bool:
        live.take()
        return not live.is_live

    wait_until(is_done)


def test_a_whole_answer(console: Console) -> None:  # noqa: F811
    load(console, "m")
    live = LiveAnswer(Lane("m", SamplingParams(seed=4, max_tokens=9)), _ASKED, console)
    finish(live)
    answer = live.answer()
    assert answer.text == "The capital of France is Paris."
    assert (answer.instance_id, answer.finish_reason, answer.error) == ("m", "stop", None)
    assert answer.parameters == {"seed": 4, "max_tokens": 9}
    assert answer.num_output_tokens == 6
    assert answer.ttft_s is not None
    assert answer.queue_s is not None
    assert answer.ttft_s >= answer.queue_s >= 0


def test_closing_cancels_and_keeps_the_part(console: Console, backend: FakeBackend) -> None:  # noqa: F811
    load(console, "m")
    backend.gate.clear()
    live = LiveAnswer(Lane("m", SamplingParams()), _ASKED, console)
    assert "waiting" in live.status()
    live.close()
    answer = live.answer()
    assert (answer.finish_reason, answer.error) == ("cancelled", None)
    assert console.engine.requests() == ()


def test_a_model_that_is_not_there_is_an_answer_with_the_reason(console: Console) -> None:  # noqa: F811
    live = LiveAnswer(Lane("nobody", SamplingParams()), _ASKED, console)
    assert not live.is_live
    live.close()
    assert "there is no model named 'nobody'" in (live.answer().error or "")


def test_parameters_that_cannot_be_used_send_nothing(console: Console) -> None:  # noqa: F811
    load(console, "m")
    live = LiveAnswer(Lane("m", SamplingParams(), "top_p is 2"), _ASKED, console)
    assert (live.is_live, live.answer().error) == (False, "top_p is 2")


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(0.3, 0.5, 4, 0.1, 1.2, 0.5, -0.5, {3: 1.5}, 7, ("a", "b"), 10, 5),
    ],
)
def test_parameters_survive_being_stored(sampling: SamplingParams) -> None:
    assert restore_parameters(shown_parameters(sampling)) == sampling
