"""The items of `/v1/responses` as the turns of a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.api.messages import join_parts
from engine.errors import InvalidRequestError
from engine.inference.images import Content, read_data_url
from engine.inference.request import Message
from engine.inference.tools import ToolCall

Item = dict[str, Any]


def to_messages(instructions: str | None, earlier: Sequence[Item], items: Sequence[Item]) -> tuple[Message, ...]:
    """Items in the terms of chat templates, those of earlier responses first: calls that follow one another belong to
    one turn, with the text that the model wrote before them.

    Raises:
        InvalidRequestError: an output answers no call, or a picture is none that is taken.
    """
    names: dict[str, str] = {}
    messages = [Message("system", instructions)] if instructions else []
    places = [*("previous_response_id" for _ in earlier), *(f"input.{at}" for at in range(len(items)))]
    for place, item in zip(places, [*earlier, *items], strict=True):
        if item["type"] == "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            names[call.call_id] = call.name
            turn = messages.pop() if messages and messages[-1].role == "assistant" else Message("assistant", "")
            messages.append(Message("assistant", turn.content, (*turn.tool_calls, call)))
        elif item["type"] == "function_call_output":
            messages.append(_result(item, names))
        else:
            role = "system" if item["role"] == "developer" else item["role"]
            messages.append(Message(role, _content(item, place)))
    return tuple(messages)


def _result(item: Item, names: dict[str, str]) -> Message:
    call_id = item["call_id"]
    if call_id not in names:
        raise InvalidRequestError(
            f"function_call_output answers {call_id!r}, which no function_call before it has: send both", "input"
        )
    return Message("tool", item["output"], tool_call_id=call_id, name=names[call_id])


def _content(item: Item, place: str) -> Content:
    return join_parts(
        read_data_url(part["image_url"], part["detail"], f"{place}.content.{at}.image_url")
        if part["type"] == "input_image"
        else part["text"]
        for at, part in enumerate(item["content"])
    )
