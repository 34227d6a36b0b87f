from __future__ import annotations

import copy
from typing import Any

import pytest

from engine.api.response_runs import events_of
from engine.api.response_writer import ResponseWriter
from engine.api.responses_schema import ResponseRequest
from engine.inference.request import Delta, Event, Finished, FinishReason, Timing, TokenInfo
from engine.inference.tools import CallPiece


def _finished(reason: FinishReason = FinishReason.STOP, error: str | None = None) -> Finished:
    return Finished("resp_1", reason, 3, 2, 7, Timing(100.5, 10.0, finished_s=12.0), error)


def _write(*events: Event, **fields: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    body = ResponseRequest.model_validate({"model": "m", "input": "hi", **fields})
    writer = ResponseWriter(body, "resp_1", 100.5)
    made = [copy.deepcopy(event) for event in writer.begin()]
    made += [copy.deepcopy(one) for event in events for one in events_of(writer, event)]
    return made, writer.response


def _kinds(made: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in made]


def test_text_in_the_order_that_clients_expect() -> None:
    made, response = _write(Delta("Hello"), Delta(" you"), _finished())
    assert _kinds(made) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in made] == list(range(10))
    assert made[0]["response"]["status"] == "in_progress"
    assert made[2]["item"]["content"] == []
    assert made[3]["part"]["text"] == ""
    assert made[6]["text"] == "Hello you"
    assert made[-1]["response"] == response
    (item,) = response["output"]
    assert item["status"] == response["status"] == "completed"
    assert item["content"] == [{"type": "output_text", "text": "Hello you", "annotations": [], "logprobs": []}]
    assert {event["item_id"] for event in made if "item_id" in event} == {item["id"]}
    assert response["usage"]["input_tokens"] == 3
    assert response["usage"]["output_tokens"] == 2
    assert (response["created_at"], response["completed_at"], response["seed"]) == (100, 102, 7)


def test_an_answer_without_text_is_an_empty_message() -> None:
    made, response = _write(Delta("", (TokenInfo(257, "<|im_end|>"),)), _finished())
    assert _kinds(made)[2:] == [
        "output_item.added",
        "content_part.added",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert response["output"][0]["content"][0]["text"] == ""


def test_calls_follow_the_text_before_them() -> None:
    made, response = _write(
        Delta("Let me look."),
        Delta("", calls=(CallPiece(0, "", "call_a", "weather"),)),
        Delta("", calls=(CallPiece(0, '{"city":'),)),
        Delta("", calls=(CallPiece(0, '"Rome"}'), CallPiece(1, "{}", "call_b", "time"))),
        _finished(),
    )
    assert _kinds(made)[5:] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    text, first, second = response["output"]
    assert text["content"][0]["text"] == "Let me look."
    assert (first["call_id"], first["name"], first["arguments"]) == ("call_a", "weather", '{"city":"Rome"}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("call_b", "time", "{}")
    done = [event for event in made if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in done] == [0, 1, 2]
    assert [event["item"] for event in done] == response["output"]


def test_a_length_that_cut_the_answer_leaves_it_incomplete() -> None:
    made, response = _write(Delta("Hel"), _finished(FinishReason.LENGTH))
    assert _kinds(made)[-1] == "incomplete"
    assert response["status"] == response["output"][0]["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None


@pytest.mark.parametrize(
    ("reason", "error", "words"),
    [
        (FinishReason.ERROR, "out of memory", "out of memory"),
        (FinishReason.DEADLINE, None, "deadline"),
        (FinishReason.CANCELLED, None, "cancelled by the operator"),
    ],
)
def test_a_failure_says_why(reason: FinishReason, error: str | None, words: str) -> None:
    made, response = _write(Delta("Hel"), _finished(reason, error))
    assert _kinds(made)[-2:] == ["output_item.done", "failed"]
    assert response["status"] == "failed"
    assert response["error"]["code"] == "server_error"
    assert words in response["error"]["message"]


def test_a_background_response_is_queued_then_in_progress_then_cancelled() -> None:
    body = ResponseRequest.model_validate({"model": "m", "input": "hi", "background": True})
    writer = ResponseWriter(body, "resp_1", 100.5)
    assert writer.response["status"] == "queued"
    list(writer.feed(Delta("Hel")))
    assert writer.response["status"] == "in_progress"
    list(writer.finish(_finished(FinishReason.CANCELLED)))
    assert writer.response["status"] == "cancelled"
    assert writer.response["error"] is None


def test_logprobs_where_they_are_asked_for() -> None:
    token = TokenInfo(5, "Hé", -0.5, ((5, "Hé", -0.5), (6, "x", -2.0)))
    include = ["message.output_text.logprobs"]
    made, response = _write(Delta("Hé", (token,)), _finished(), include=include, top_logprobs=2)
    (logprob,) = response["output"][0]["content"][0]["logprobs"]
    assert (logprob["token"], logprob["logprob"], logprob["bytes"]) == ("Hé", -0.5, [72, 195, 169])
    assert [top["token"] for top in logprob["top_logprobs"]] == ["Hé", "x"]
    assert made[4]["logprobs"] == [logprob]
    made, _ = _write(Delta("Hé", (token,)), _finished())
    assert made[4]["logprobs"] == []


def test_half_a_character_has_its_real_bytes() -> None:
    token = TokenInfo(7, r"bytes:\xf0\x9f", -1.0)
    _, response = _write(Delta("", (token,)), _finished(), include=["message.output_text.logprobs"], top_logprobs=0)
    (logprob,) = response["output"][0]["content"][0]["logprobs"]
    assert logprob["bytes"] == [0xF0, 0x9F]
