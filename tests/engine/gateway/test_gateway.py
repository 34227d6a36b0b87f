"""The gateway over a fake local engine and servers that behave as they are told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import pytest

from engine.errors import (
    ConsoleError,
    ContextLengthError,
    InstanceNotFoundError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueFullError,
    WeightsError,
)
from engine.gateway import Gateway
from engine.inference.embedding import EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished, FinishReason, Message, Request, SamplingParams
from engine.inference.tools import JsonSchema
from engine.instance import InstanceState
from engine.latency.record import RequestRecord, Status
from engine.scheduling.router import Ask, BreakerState, Cause, Feature, Precision, Route, Target
from tests.engine.remote.openai_server import OpenAiServer, chunk, hang, refuse, say, send, speak_on, texts
from tests.fakes import FakeBackend, fake_spec, wait_until

Load = Callable[[str], None]
Add = Callable[..., OpenAiServer]
LOCAL_ANSWER = "The capital of France is Paris."
BROKEN = refuse(500, {"error": {"message": "out of memory"}})


def ask(model: str, content: str = "Hello", **fields: object) -> Request:
    return Request(model, (Message("user", content),), **fields)


def read(stream: OutputStream) -> tuple[str, Finished]:
    *events, last = stream
    assert isinstance(last, Finished)
    return texts(events), last


def answer(gateway: Gateway, model: str, content: str = "Hello") -> str:
    text, finished = read(gateway.stream(ask(model, content)))
    assert finished.reason is FinishReason.STOP, finished.error
    return text


def last_causes(gateway: Gateway) -> dict[str, Cause | None]:
    return {verdict.instance: verdict.cause for verdict in gateway.decisions()[0].decision.verdicts}


def test_a_local_instance_by_its_name(gateway: Gateway, load: Load) -> None:
    load("m")
    stream = gateway.stream(ask("m"))
    assert read(stream)[0] == LOCAL_ANSWER
    assert stream.instance == "m"
    (decided,) = gateway.decisions()
    assert (decided.request_id, decided.decision.instance) == (stream.request_id, "m")
    assert gateway.recent("m").num_answered == 1


def test_a_remote_instance_by_its_name(gateway: Gateway, add: Add) -> None:
    add("far")
    assert answer(gateway, "far") == "Hello world"
    assert gateway.recent("far").num_answered == 1


def test_a_name_that_is_none_is_not_found(gateway: Gateway, load: Load, add: Add) -> None:
    with pytest.raises(InstanceNotFoundError, match="there is no model named 'x'; loaded: none"):
        gateway.stream(ask("x"))
    load("m")
    add("far")
    for name in ("x", "x:fast"):
        with pytest.raises(InstanceNotFoundError, match=f"no model named '{name}'; loaded: m, far"):
            gateway.stream(ask(name))


def test_a_local_instance_that_cannot_answer_says_it_itself(gateway: Gateway, backend: FakeBackend) -> None:
    backend.load_error = WeightsError("cut short")
    gateway._engine().load(fake_spec("m"))
    wait_until(lambda: gateway._engine().instances()[0].state is InstanceState.FAILED)
    with pytest.raises(InstanceNotReadyError, match="m is failed: cut short"):
        gateway.stream(ask("m"))


def test_auto_goes_to_whoever_can(gateway: Gateway, load: Load, add: Add) -> None:
    with pytest.raises(InstanceNotReadyError, match="nothing is loaded"):
        gateway.stream(ask("auto"))
    load("m")
    far = add("far")
    gateway._engine().unload("m", 0)
    assert answer(gateway, "auto") == "Hello world"
    assert far.seen[0][1]["model"] == "there"
    assert gateway.names() == ("far",)


def test_a_failure_goes_on_to_the_next_and_nobody_sees_it(
    gateway: Gateway, load: Load, add: Add, records: list[RequestRecord]
) -> None:
    load("m")
    add("far").answer = BROKEN
    gateway.routes.save(Route("chat", (Target("far"),), ("m",)))
    stream = gateway.stream(ask("chat"))
    text, finished = read(stream)
    assert (text, finished.reason, stream.instance) == (LOCAL_ANSWER, FinishReason.STOP, "m")
    second, first = gateway.decisions()
    assert (first.decision.instance, second.decision.instance) == ("far", "m")
    assert second.decision.verdicts[0].reason == "it was tried: far failed (500): out of memory"
    wait_until(lambda: len(records) == 2)
    assert {record.model: record.status for record in records} == {"far": Status.ERRORED, "m": Status.SUCCESSFUL}
    assert {record.request_id for record in records} == {stream.request_id}


def test_a_failure_in_the_middle_is_told(gateway: Gateway, load: Load, add: Add) -> None:
    load("m")
    add("far").answer = send(chunk({"content": "Hel"}))
    gateway.routes.save(Route("chat", (Target("far"),), ("m",)))
    text, finished = read(gateway.stream(ask("chat")))
    assert (text, finished.reason) == ("Hel", FinishReason.ERROR)
    assert "broke off in the middle" in str(finished.error)


def test_the_clients_own_mistake_goes_nowhere_else(gateway: Gateway, load: Load, add: Add) -> None:
    load("m")
    add("far").answer = refuse(400, {"error": {"message": "top_k", "param": "top_k"}})
    gateway.routes.save(Route("chat", (Target("far"),), ("m",)))
    _, finished = read(gateway.stream(ask("chat")))
    assert isinstance(finished.failure(), InvalidRequestError)
    assert len(gateway.decisions()) == 1


def test_a_worker_that_dies_before_the_first_word_is_made_good(
    gateway: Gateway, load: Load, add: Add, backend: FakeBackend
) -> None:
    backend.words = (RuntimeError("boom"),)
    load("m")
    add("far")
    gateway.routes.save(Route("chat", (Target("m"),), ("far",)))
    assert answer(gateway, "chat") == "Hello world"


def test_when_all_fail_the_last_failure_is_told(gateway: Gateway, add: Add) -> None:
    add("one").answer = BROKEN
    add("two").answer = BROKEN
    gateway.routes.save(Route("chat", (Target("one"),), ("two",)))
    _, finished = read(gateway.stream(ask("chat")))
    assert finished.error == "two failed (500): out of memory"
    failure = finished.failure()
    assert failure is not None
    assert failure.status == 503


def test_the_breaker_opens_and_a_trial_closes_it(gateway: Gateway, load: Load, add: Add) -> None:
    load("m")
    far = add("far")
    far.answer = BROKEN
    gateway.routes.save(Route("chat", (Target("far"),), ("m",), is_sticky=False))
    for _ in range(2):
        assert answer(gateway, "chat") == LOCAL_ANSWER
    assert gateway.breaker_state("far") is BreakerState.OPEN
    num_sent = len(far.seen)
    assert answer(gateway, "chat") == LOCAL_ANSWER
    if last_causes(gateway)["far"] is Cause.BREAKER:  # a machine so slow that the pause is over tries again
        assert len(far.seen) == num_sent
    far.answer = say("well again")
    wait_until(lambda: answer(gateway, "chat") == "well again")
    assert gateway.breaker_state("far") is BreakerState.CLOSED


def test_a_client_that_leaves_a_trial_leaves_room_for_the_next(gateway: Gateway, add: Add) -> None:
    far = add("far")
    far.answer = BROKEN
    for _ in range(2):
        read(gateway.stream(ask("far")))
    with pytest.raises(InstanceNotReadyError, match="its breaker is open"):
        gateway.stream(ask("far"))
    far.answer = hang
    wait_until(lambda: gateway.breaker_state("far") is BreakerState.HALF_OPEN)
    gateway.stream(ask("far")).close()
    far.answer = say("well again")
    assert answer(gateway, "far") == "well again"


def test_precision_by_the_ending_of_the_name(gateway: Gateway, add: Add) -> None:
    add("full", bits_per_weight=16.0).answer = say("full")
    add("small", bits_per_weight=4.5).answer = say("small")
    gateway.routes.save(Route("chat", (Target("full"), Target("small"))))
    assert [answer(gateway, f"chat:{one}") for one in ("quality", "fast")] == ["full", "small"]
    assert answer(gateway, "auto:fast") == "small"


def test_what_an_instance_cannot_do_is_not_asked_of_it(gateway: Gateway, add: Add) -> None:
    add("plain").answer = say("plain")
    add("able", features=frozenset({Feature.TEXT, Feature.STRUCTURED_OUTPUT}), context_length=300).answer = say("able")
    gateway.routes.save(Route("chat", (Target("plain"), Target("able"))))
    structured = ask("chat", constraint=JsonSchema({"type": "object"}))
    assert {read(gateway.stream(structured))[0] for _ in range(5)} == {"able"}
    with pytest.raises(InvalidRequestError, match="it has no structured output"):
        gateway.stream(ask("plain", constraint=JsonSchema({})))
    with pytest.raises(ContextLengthError, match="its context holds 300"):
        gateway.stream(ask("able", "x" * 9_000))


def test_a_context_that_is_too_short_after_all_goes_to_a_longer_one(gateway: Gateway, add: Add) -> None:
    refusal = {"error": {"message": "700 tokens", "code": "context_length_exceeded"}}
    add("short").answer = refuse(400, refusal)
    add("long").answer = say("long")
    gateway.routes.save(Route("chat", (Target("short"),), ("long",)))
    assert answer(gateway, "chat") == "long"
    assert gateway.recent("short").num_failed == 0


def test_a_conversation_stays_where_it_began(gateway: Gateway, add: Add) -> None:
    servers = {name: add(name) for name in ("one", "two", "three")}
    for name, server in servers.items():
        server.answer = say(name)
    gateway.routes.save(Route("chat", tuple(Target(name) for name in servers), is_weighted=True))
    first = {topic: answer(gateway, "chat", f"about {topic}") for topic in range(24)}
    assert set(first.values()) == set(servers)
    for topic, name in first.items():
        turns = (Message("user", f"about {topic}"), Message("assistant", name), Message("user", "more"))
        assert read(gateway.stream(Request("chat", turns)))[0] == name
    assert gateway.decisions()[0].decision.reason == "it answered this conversation before"


def test_a_canary_gets_its_share(gateway: Gateway, load: Load, add: Add) -> None:
    """The route has the model's own name, so that nobody has to ask for another."""
    load("m")
    add("next").answer = say("next")
    gateway.routes.save(Route("m", (Target("m", 80), Target("next", 20)), is_weighted=True, is_sticky=False))
    decided = Counter(gateway.decide(Ask("m", key=str(number))).instance for number in range(2_000))
    assert abs(decided["next"] / 2_000 - 0.2) < 0.05
    streams = [gateway.stream(ask("m")) for _ in range(20)]
    for stream in streams:
        read(stream)
    assert {stream.instance for stream in streams} <= {"m", "next"}


def test_a_long_prompt_goes_where_it_was_seen(gateway: Gateway, add: Add) -> None:
    for name in ("one", "two"):
        add(name)
    gateway.routes.save(Route("chat", (Target("one"), Target("two")), is_sticky=False))
    system = Message("system", "s" * 4_000)
    chosen = set()
    for number in range(6):
        stream = gateway.stream(Request("chat", (system, Message("user", f"question {number}"))))
        read(stream)
        chosen.add(stream.instance)
    assert len(chosen) == 1


def test_trying_sends_and_remembers_nothing(gateway: Gateway, load: Load, add: Add) -> None:
    load("m")
    far = add("far", bits_per_weight=4.0)
    decision = gateway.decide(Ask("auto", precision=Precision.FAST))
    assert decision.instance == "far"
    assert (gateway.decisions(), far.seen) == ((), [])


def test_requests_everywhere_are_seen_and_cancelled(
    gateway: Gateway, load: Load, add: Add, backend: FakeBackend
) -> None:
    load("m")
    backend.gate.clear()
    add("far").answer = hang
    streams = [gateway.stream(ask("m")), gateway.stream(ask("far"))]
    assert {request.model for request in gateway.requests()} == {"m", "far"}
    assert all(gateway.cancel(stream.request_id) for stream in streams)
    assert [read(stream)[1].reason for stream in streams] == [FinishReason.CANCELLED] * 2
    wait_until(lambda: gateway.requests() == ())
    assert not gateway.cancel(streams[0].request_id)


def test_closing_frees_the_remote_at_once(gateway: Gateway, add: Add) -> None:
    far = add("far")
    far.answer = speak_on
    stream = gateway.stream(ask("far"))
    assert stream.wait(20)
    stream.close()
    assert far.left.wait(20)
    wait_until(lambda: gateway.requests() == ())


def test_one_that_is_full_sends_on_and_when_all_are_it_is_said(gateway: Gateway, add: Add) -> None:
    for name in ("one", "two"):
        add(name, max_running=1).answer = hang
    gateway.routes.save(Route("chat", (Target("one"), Target("two"))))
    streams = [gateway.stream(ask("chat", f"{number}")) for number in range(2)]
    assert {stream.instance for stream in streams} == {"one", "two"}
    with pytest.raises(QueueFullError, match="its queue is full"):
        gateway.stream(ask("chat"))
    for stream in streams:
        stream.close()


def test_the_deadline_holds_over_all_tries(gateway: Gateway, add: Add) -> None:
    add("one", silence_s=0.2).answer = hang
    add("two").answer = hang
    gateway.routes.save(Route("chat", (Target("one"),), ("two",)))
    stream = gateway.stream(ask("chat", timeout_s=2.0))
    _, finished = read(stream)
    assert (finished.reason, stream.instance) == (FinishReason.DEADLINE, "two")
    found = re.fullmatch(r"the request did not end within (1\.\d+) s: allow it more", str(finished.error))
    assert found is not None


def test_a_request_that_is_wrong_is_refused_before_anybody_is_asked(gateway: Gateway, load: Load) -> None:
    load("m")
    with pytest.raises(InvalidRequestError, match="temperature is 9"):
        gateway.stream(ask("m", sampling=SamplingParams(temperature=9.0)))
    assert gateway.decisions() == ()


def test_what_only_local_instances_do_finds_them_behind_a_route(gateway: Gateway, load: Load, add: Add) -> None:
    load("m")
    add("far")
    gateway.routes.save(Route("chat", (Target("far"), Target("m"))))
    assert gateway._directory.local_name("chat") == "m"
    with pytest.raises(InstanceNotFoundError, match="'far' is served elsewhere"):
        gateway.embed(EmbeddingRequest("far", ("text",)))


def test_a_local_instance_hides_a_remote_one_of_its_name(gateway: Gateway, load: Load, add: Add) -> None:
    add("m")
    load("m")
    assert answer(gateway, "m") == LOCAL_ANSWER
    assert [candidate.is_remote for candidate in gateway.candidates()] == [False]


def test_a_remote_that_is_removed_is_forgotten(gateway: Gateway, add: Add) -> None:
    add("far").answer = BROKEN
    for _ in range(2):
        read(gateway.stream(ask("far")))
    gateway.remove_remote("far")
    assert gateway.breaker_state("far") is BreakerState.CLOSED
    with pytest.raises(InstanceNotFoundError):
        gateway.stream(ask("far"))


def test_what_is_refused_is_recorded_once(gateway: Gateway, load: Load, add: Add, records: list[RequestRecord]) -> None:
    load("m")
    add("far", context_length=10)
    for request in (ask("x"), ask("m", " "), ask("far", "x" * 900), ask("m", sampling=SamplingParams(top_p=7.0))):
        with pytest.raises(ConsoleError):
            gateway.stream(request)
    assert [record.status for record in records] == [Status.REJECTED] * 4
    assert [record.finish_reason for record in records] == [
        "model_not_found",
        "invalid_request",
        "context_length_exceeded",
        "invalid_request",
    ]
