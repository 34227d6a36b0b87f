"""An answer as a response object and as the typed events that lead to it, in the order that OpenAI's clients expect."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

from engine.api.logprobs import token_logprobs
from engine.api.responses_schema import ResponseRequest
from engine.inference.request import Delta, Finished, FinishReason
from engine.inference.tools import CallPiece

_EventBody = dict[str, Any]
LIVE = frozenset({"queued", "in_progress"})


class ResponseWriter:
    """Takes an answer's events and gives the response's. What it has come to is `response`."""

    def __init__(self, body: ResponseRequest, response_id: str, created_at_s: float) -> None:
        self._body = body
        self._num_events = 0
        self._output: list[dict[str, Any]] = []
        self._is_open = False
        self.response = _new_response(body, response_id, int(created_at_s))

    def begin(self) -> Iterator[_EventBody]:
        """What comes before the answer."""
        yield self._lifecycle("response.created")
        yield self._lifecycle("response.in_progress")

    def feed(self, delta: Delta) -> Iterator[_EventBody]:
        """New text and pieces of calls."""
        self.response["status"] = "in_progress"
        logprobs = token_logprobs(delta.tokens) if self._body.has_logprobs else []
        if delta.text or logprobs:
            yield from self._text(delta.text, logprobs)
        for piece in delta.calls:
            yield from self._call(piece)

    def finish(self, finished: Finished) -> Iterator[_EventBody]:
        """The end of the answer, whatever it is."""
        status = self._status(finished)
        if status == "completed" and not self._output:
            yield from self._open(_new_message())
        yield from self._close(status)
        self._end(status, finished)
        yield self._lifecycle(f"response.{status}")

    def break_off(self, code: str, message: str) -> _EventBody:
        """An event instead of the last one, when the response cannot be kept."""
        return self._event("error", code=code, message=message, param=None)

    def _status(self, finished: Finished) -> str:
        """Only what runs in the background can be cancelled by a client that is still there."""
        if finished.reason is FinishReason.CANCELLED and self._body.background:
            return "cancelled"
        return {FinishReason.STOP: "completed", FinishReason.LENGTH: "incomplete"}.get(finished.reason, "failed")

    def _end(self, status: str, finished: Finished) -> None:
        self.response["status"] = status
        self.response["usage"] = _usage(finished)
        self.response["seed"] = finished.seed
        failure = finished.failure()
        if status == "completed":
            self.response["completed_at"] = int(finished.timing.received_at_s + _took_s(finished))
        elif status == "incomplete":
            self.response["incomplete_details"] = {"reason": "max_output_tokens"}
        elif status == "failed" and failure is not None:
            self.response["error"] = {"code": "server_error", "message": str(failure)}

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[_EventBody]:
        if not self._is_open or self._output[-1]["type"] != "message":
            yield from self._close("completed")
            yield from self._open(_new_message())
        part = self._output[-1]["content"][0]
        part["text"] += text
        part["logprobs"].extend(logprobs)
        yield self._of_item("response.output_text.delta", content_index=0, delta=text, logprobs=logprobs)

    def _call(self, piece: CallPiece) -> Iterator[_EventBody]:
        if piece.call_id is not None:
            yield from self._close("completed")
            yield from self._open(_new_call(piece))
        if piece.arguments:
            self._output[-1]["arguments"] += piece.arguments
            yield self._of_item("response.function_call_arguments.delta", delta=piece.arguments)

    def _open(self, item: dict[str, Any]) -> Iterator[_EventBody]:
        self._output.append(item)
        self._is_open = True
        yield self._event("response.output_item.added", output_index=self._index, item=_without_content(item))
        if item["type"] == "message":
            part = {**item["content"][0]}
            yield self._of_item("response.content_part.added", content_index=0, part=part)

    def _close(self, status: str) -> Iterator[_EventBody]:
        """End the item under way."""
        if not self._is_open:
            return
        self._is_open = False
        item = self._output[-1]
        item["status"] = "completed" if status == "completed" else "incomplete"
        if item["type"] == "message":
            part = item["content"][0]
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield self._of_item("response.output_text.done", content_index=0, **done)
            yield self._of_item("response.content_part.done", content_index=0, part=part)
        else:
            named = {"name": item["name"], "arguments": item["arguments"]}
            yield self._of_item("response.function_call_arguments.done", **named)
        self.response["output"] = list(self._output)
        yield self._event("response.output_item.done", output_index=self._index, item=item)

    @property
    def _index(self) -> int:
        return len(self._output) - 1

    def _of_item(self, kind: str, **fields: Any) -> _EventBody:
        return self._event(kind, item_id=self._output[-1]["id"], output_index=self._index, **fields)

    def _lifecycle(self, kind: str) -> _EventBody:
        return self._event(kind, response=dict(self.response))

    def _event(self, kind: str, **fields: Any) -> _EventBody:
        event = {"type": kind, "sequence_number": self._num_events, **fields}
        self._num_events += 1
        return event


def _new_response(body: ResponseRequest, response_id: str, created_at_s: int) -> dict[str, Any]:
    return {
        "id": response_id,
        "object": "response",
        "created_at": created_at_s,
        "status": "queued" if body.background else "in_progress",
        "background": body.background,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls,
        "previous_response_id": body.previous_response_id,
        "seed": None,
        "service_tier": "default",
        "store": body.store,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": body.text.model_dump(by_alias=True, exclude_none=True),
        "tool_choice": body.tool_choice if isinstance(body.tool_choice, str) else body.tool_choice.model_dump(),
        "tools": [tool.model_dump() for tool in body.tools],
        "top_logprobs": body.top_logprobs,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": body.user,
    }


def _new_message() -> dict[str, Any]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [part],
    }


def _new_call(piece: CallPiece) -> dict[str, Any]:
    return {
        "id": f"fc_{uuid.uuid4().hex}",
        "type": "function_call",
        "call_id": piece.call_id,
        "name": piece.name,
        "arguments": "",
        "status": "in_progress",
    }


def _without_content(item: dict[str, Any]) -> dict[str, Any]:
    """An item as it begins: its parts are announced one by one."""
    return {**item, "content": []} if item["type"] == "message" else dict(item)


def _usage(finished: Finished) -> dict[str, Any]:
    prompt, output = finished.num_prompt_tokens, finished.num_output_tokens
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": finished.num_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + output,
    }


def _took_s(finished: Finished) -> float:
    timing = finished.timing
    return 0.0 if timing.finished_s is None else timing.finished_s - timing.received_s
