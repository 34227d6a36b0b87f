"""Remote instances against a server that behaves, and misbehaves, as it is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.clock import SystemClock
from engine.errors import (
    ConsoleError,
    InstanceExistsError,
    InstanceNotFoundError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueFullError,
)
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.instance import InstanceState
from engine.latency.record import RequestRecord, Status
from engine.remote import RemoteInfo, Remotes, RemoteSpec
from engine.remote.trouble import RemoteError
from engine.state.database import Database
from engine.state.serving import ServingStore
from tests.engine.remote.openai_server import OpenAiServer, chunk, hang, refuse, say, send, speak_on, texts
from tests.fakes import wait_until

Add = Callable[..., RemoteInfo]
SECRET = "sk-very-secret"


def ask(remotes: Remotes, name: str = "far", **fields: object) -> OutputStream:
    clock = SystemClock()
    request = Request(name, (Message("user", "Hello"),), **fields)
    return remotes.find(name).submit(request, Timing(clock.wall(), clock.monotonic()))


def end_of(stream: OutputStream) -> Finished:
    *_, last = stream
    assert isinstance(last, Finished)
    return last


def failure_of(stream: OutputStream) -> ConsoleError:
    finished = end_of(stream)
    assert finished.reason is FinishReason.ERROR
    failure = finished.failure()
    assert failure is not None
    assert str(failure) == finished.error
    return failure


def test_an_answer_comes_as_from_a_local_instance(
    add: Add, remotes: Remotes, server: OpenAiServer, records: list[RequestRecord]
) -> None:
    add()
    events = list(ask(remotes, sampling=SamplingParams(seed=5, max_tokens=9), source="test"))
    last = events[-1]
    assert texts(events) == "Hello world"
    assert isinstance(last, Finished)
    assert (last.reason, last.num_prompt_tokens, last.num_output_tokens, last.seed) == (FinishReason.STOP, 7, 2, 5)
    assert last.failure() is None
    assert server.seen[0][0] == "/v1/chat/completions"
    assert server.seen[0][1]["model"] == "there"
    wait_until(lambda: len(records) == 1)
    record = records[0]
    assert (record.model, record.source, record.status) == ("far", "test", Status.SUCCESSFUL)
    assert record.ttft_s is not None
    assert 0 < record.ttft_s <= record.e2e_s
    assert record.queue_s is None
    assert remotes.requests() == ()


def test_the_seed_that_was_drawn_is_told(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    assert end_of(ask(remotes)).seed == server.seen[0][1]["seed"]


def test_answers_come_at_the_same_time(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    barrier = threading.Barrier(8)

    def answer_together(handler: object) -> None:
        barrier.wait(20)
        say("together")(handler)  # type: ignore[arg-type]

    server.answer = answer_together
    streams = [ask(remotes) for _ in range(8)]
    assert [texts(list(stream)) for stream in streams] == ["together"] * 8


def test_a_request_that_is_closed_closes_the_connection(
    add: Add, remotes: Remotes, server: OpenAiServer, records: list[RequestRecord]
) -> None:
    add()
    server.answer = speak_on
    stream = ask(remotes)
    assert stream.wait(20)
    (request,) = remotes.requests()
    assert (request.request_id, request.model, request.is_running) == (stream.request_id, "far", True)
    stream.close()
    assert end_of(stream).reason is FinishReason.CANCELLED
    assert server.left.wait(20)
    wait_until(lambda: [record.status for record in records] == [Status.CANCELLED])
    assert remotes.requests() == ()


def test_the_operator_cancels_by_id(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    server.answer = hang
    stream = ask(remotes)
    assert remotes.cancel(stream.request_id)
    assert end_of(stream).reason is FinishReason.CANCELLED
    assert not remotes.cancel(stream.request_id)


def test_a_deadline_ends_a_request_that_hangs(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    server.answer = hang
    finished = end_of(ask(remotes, timeout_s=0.2))
    assert finished.reason is FinishReason.DEADLINE
    assert finished.error == "the request did not end within 0.2 s: allow it more"


def test_silence_is_a_failure_of_the_instance(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add(silence_s=0.2)
    server.answer = send(chunk({"content": "Hel"}), then=hang)
    failure = failure_of(ask(remotes))
    assert isinstance(failure, RemoteError)
    assert "far sent nothing for 0.2 s" in str(failure)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refuse(500, {"error": {"message": "out of memory"}}), r"far failed \(500\): out of memory"),
        (send(chunk({"content": "Hel"}), then=lambda handler: handler.cut()), "the connection to far broke"),
        (send(chunk({"content": "Hel"})), "far broke off in the middle"),
        (send("}{"), "sent an event that belongs to no answer"),
        (send('{"error": {"message": "a worker died"}}'), "far broke off: a worker died"),
        (lambda handler: handler.send_whole(200, b"<html></html>", "text/html"), "no event stream"),
        (send("x" * 1_200_000), "no event stream"),
        (refuse(404, {"error": {"message": "no model there"}}), "no such model or route"),
    ],
)
def test_each_way_to_fail_has_its_words(
    add: Add, remotes: Remotes, server: OpenAiServer, answer: object, words: str
) -> None:
    add()
    server.answer = answer  # type: ignore[assignment]
    failure = failure_of(ask(remotes))
    assert isinstance(failure, RemoteError)
    with pytest.raises(RemoteError, match=words):
        raise failure


def test_what_the_client_did_wrong_stays_the_clients(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    server.answer = refuse(400, {"error": {"message": "top_k is not for us", "param": "top_k"}})
    failure = failure_of(ask(remotes))
    assert isinstance(failure, InvalidRequestError)
    assert (failure.status, failure.param) == (400, "top_k")


def test_a_stream_that_nobody_reads_is_cut_off(
    add: Add, remotes: Remotes, server: OpenAiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.inference.outputs.MAX_UNREAD_TOKENS", 20)
    add()
    server.answer = speak_on
    stream = ask(remotes)
    wait_until(lambda: stream.finished is not None)
    assert stream.finished is not None
    assert stream.finished.reason is FinishReason.CANCELLED
    assert "left unread" in str(stream.finished.error)


def test_more_than_it_may_have_is_refused(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add(max_running=1)
    server.answer = hang
    first = ask(remotes)
    with pytest.raises(QueueFullError, match="far has 1 requests under way"):
        ask(remotes)
    first.close()
    end_of(first)
    wait_until(lambda: remotes.requests() == ())
    server.answer = say("free")
    assert texts(list(ask(remotes))) == "free"


def test_an_id_that_is_running_already_is_refused(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    """Else closing either of them would end the other, and the first could never be ended."""
    add()
    server.answer = hang
    first = ask(remotes, request_id="mine")
    with pytest.raises(InvalidRequestError, match="request_id mine is running already"):
        ask(remotes, request_id="mine")
    assert len(remotes.requests()) == 1
    first.close()
    assert end_of(first).reason is FinishReason.CANCELLED


def test_a_model_that_it_does_not_have(add: Add, remotes: Remotes) -> None:
    info = add(InstanceState.FAILED, model="elsewhere")
    assert info.reason == "far offers no model 'elsewhere': it has there"
    with pytest.raises(InstanceNotReadyError, match="far is failed: far offers no model"):
        ask(remotes)


def test_it_fails_and_comes_back_with_its_server(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    server.models_status = 503
    wait_until(lambda: remotes.find("far").info().state is InstanceState.FAILED)
    assert "far failed (503)" in str(remotes.find("far").info().reason)
    server.models_status = 200
    wait_until(lambda: remotes.find("far").info().state is InstanceState.READY)
    assert remotes.find("far").info().reason is None


def test_one_check_without_an_answer_is_forgiven_two_are_not(remotes: Remotes, server: OpenAiServer) -> None:
    remotes.add(RemoteSpec("far", server.url, "there", check_timeout_s=0.5, check_every_s=3600.0))
    wait_until(lambda: remotes.find("far").info().checked_at_s is not None)
    wait_until(lambda: remotes.check("far").state is InstanceState.READY)
    server.is_silent = True
    assert remotes.check("far").state is InstanceState.READY
    assert remotes.check("far").state is InstanceState.FAILED
    assert remotes.find("far").info().reason == "far did not answer a check within 0.5 s"


def test_a_server_that_is_not_there(remotes: Remotes) -> None:
    remotes.add(RemoteSpec("gone", "http://127.0.0.1:9/v1", "m"))
    wait_until(lambda: remotes.find("gone").info().state is InstanceState.FAILED)
    assert "gone cannot be reached (connection refused)" in str(remotes.find("gone").info().reason)


def test_the_context_length_is_the_servers_where_the_operator_says_none(add: Add, server: OpenAiServer) -> None:
    server.models = {"data": [{"id": "there", "max_model_len": 4096}]}
    assert add().context_length == 4096
    assert add(name="other", context_length=100).context_length == 100


def test_a_stored_key_is_sent_and_never_shown(
    add: Add, remotes: Remotes, server: OpenAiServer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        server.models_status = 401
        server.models = {"error": {"message": f"{SECRET} is wrong"}}
        info = add(InstanceState.FAILED, key=SECRET)
    assert f"Bearer {SECRET}" in server.keys
    assert "(hidden) is wrong" in str(info.reason)
    assert SECRET not in repr((info, ServingStore(database).remotes(), remotes.infos(), remotes.find("far")))
    assert SECRET not in caplog.text


def test_a_key_by_its_variable_is_stored_nowhere(
    add: Add, remotes: Remotes, server: OpenAiServer, environ: dict[str, str], database: Database
) -> None:
    environ["FAR_KEY"] = SECRET
    add(key_variable="FAR_KEY", key="ignored")
    list(ask(remotes))
    assert set(server.keys) == {f"Bearer {SECRET}"}
    assert ServingStore(database).key("far") is None


def test_a_variable_that_is_not_set_is_named(add: Add) -> None:
    info = add(InstanceState.FAILED, key_variable="FAR_KEY")
    assert "FAR_KEY, which should hold the key of far, is not set" in str(info.reason)


def test_what_is_added_is_there_after_a_restart(
    add: Add, remotes: Remotes, server: OpenAiServer, database: Database
) -> None:
    add(key=SECRET)
    remotes.close()
    again = Remotes(ServingStore(database), 20.0, lambda _request, _finished: None, SystemClock())
    wait_until(lambda: again.find("far").info().state is InstanceState.READY)
    assert server.keys[-1] == f"Bearer {SECRET}"
    again.close()


def test_a_name_is_taken_once_and_free_when_it_is_removed(
    add: Add, remotes: Remotes, server: OpenAiServer, database: Database
) -> None:
    add(key=SECRET)
    with pytest.raises(InstanceExistsError, match="named 'far' is here already"):
        add()
    server.answer = hang
    stream = ask(remotes)
    remotes.remove("far")
    assert end_of(stream).reason is FinishReason.CANCELLED
    assert (remotes.infos(), ServingStore(database).key("far")) == ((), None)
    with pytest.raises(InstanceNotFoundError, match="no remote instance named 'far'"):
        remotes.remove("far")


def test_a_trial_keeps_nothing(remotes: Remotes, server: OpenAiServer) -> None:
    spec = RemoteSpec("far", server.url, "there")
    trial = remotes.test(spec, SECRET)
    assert ([model.id for model in trial.models], trial.error) == (["there"], None)
    assert server.keys == [f"Bearer {SECRET}"]
    server.models = {"data": "nothing"}
    assert "no list of models" in str(remotes.test(spec).error)
    server.is_silent = True
    assert "gave no answer within 0.2 s" in str(remotes.test(replace(spec, check_timeout_s=0.2)).error)
    assert remotes.infos() == ()


def test_a_key_that_no_header_can_carry(remotes: Remotes, server: OpenAiServer) -> None:
    trial = remotes.test(RemoteSpec("far", server.url, "there"), "two words")
    assert "no HTTP header can carry" in str(trial.error)
    assert "two words" not in str(trial.error)


def test_closing_ends_what_runs(add: Add, remotes: Remotes, server: OpenAiServer) -> None:
    add()
    server.answer = speak_on
    stream = ask(remotes)
    assert stream.wait(20)
    remotes.close()
    assert end_of(stream).reason is FinishReason.CANCELLED
    assert not [thread for thread in threading.enumerate() if thread.name == "remote-instances"]
