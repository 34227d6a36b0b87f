"""One console in front of another, over loopback, with a real model behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from engine.console import Console, open_console
from engine.inference.request import Delta, Event, Finished, FinishReason, Message, Request, SamplingParams
from engine.instance import InstanceState
from engine.remote import RemoteSpec
from tests.engine.api.servers import await_ready, build_app, serve
from tests.fakes import wait_until

NO_END = {257: -100.0}


@pytest.fixture(scope="module")
def behind(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Console, str]]:
    """A console that serves the tiny model as `tiny`, and its URL."""
    home = tmp_path_factory.mktemp("behind")
    console = open_console(
        Settings(home=home, model=str(tiny_folder), model_name="tiny", device="cpu", kv_cache_gib=0.1)
    )
    await_ready(console)
    with serve(build_app(console)) as url:
        yield console, url
    console.close()


@pytest.fixture(scope="module")
def front(behind: tuple[Console, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """A console without a model, which knows the other as `far`."""
    console = open_console(Settings(home=tmp_path_factory.mktemp("front"), model="none"))
    console.gateway.remotes.add(RemoteSpec("far", behind[1], "tiny"))
    wait_until(lambda: console.gateway.remotes.find("far").info().state is InstanceState.READY)
    yield console
    console.close()


def ask(model: str, **sampling: object) -> Request:
    chosen = SamplingParams(**{"seed": 11, "max_tokens": 12, "logit_bias": NO_END, **sampling})
    return Request(model, (Message("user", "Hello"),), chosen)


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_answer_is_the_same_as_when_asked_there(
    front: Console, behind: tuple[Console, str], temperature: float
) -> None:
    there = list(behind[0].engine.stream(ask("tiny", temperature=temperature)))
    here = list(front.gateway.stream(ask("far", temperature=temperature)))
    assert text_of(here) == text_of(there) != ""
    last, expected = here[-1], there[-1]
    assert isinstance(last, Finished)
    assert isinstance(expected, Finished)
    assert (last.reason, last.seed) == (FinishReason.LENGTH, 11)
    assert (last.num_prompt_tokens, last.num_output_tokens) == (expected.num_prompt_tokens, 12)


def test_log_probabilities_come_through(front: Console, behind: tuple[Console, str]) -> None:
    def tokens(events: list[Event]) -> list[tuple[str, float | None]]:
        found = [token for event in events if isinstance(event, Delta) for token in event.tokens]
        return [(token.text, token.logprob) for token in found]

    there = tokens(list(behind[0].engine.stream(ask("tiny", top_logprobs=1))))
    assert tokens(list(front.gateway.stream(ask("far", top_logprobs=1)))) == there


def test_leaving_here_frees_the_engine_there(front: Console, behind: tuple[Console, str]) -> None:
    stream = front.gateway.stream(ask("far", max_tokens=1_900))
    assert stream.wait(30)
    assert behind[0].engine.requests()
    stream.close()
    wait_until(lambda: behind[0].engine.requests() == ())


def test_what_it_refuses_there_is_refused_here_with_its_words(front: Console) -> None:
    *_, last = front.gateway.stream(ask("far", max_tokens=5_000))
    assert isinstance(last, Finished)
    failure = last.failure()
    assert failure is not None
    assert (failure.status, failure.code) == (400, "context_length_exceeded")
    assert "max_tokens is 5,000" in str(failure)


def test_it_is_recorded_like_a_local_one(front: Console) -> None:
    stream = front.gateway.stream(ask("far"))
    list(stream)

    def kept() -> list[str]:
        front.records.flush()
        return [record.model for record in front.records.recent() if record.request_id == stream.request_id]

    wait_until(lambda: kept() == ["far"])
