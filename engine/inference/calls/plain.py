"""Tools for a chat template that knows nothing of them: everything becomes text of system, user and assistant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from engine.inference.calls.formats import HERMES
from engine.inference.images import Content
from engine.inference.request import Message
from engine.inference.tools import Tool, ToolCall


def write_plainly(messages: Iterable[Message], tools: Iterable[Tool]) -> list[dict[str, Any]]:
    """The conversation with the tools explained in its system message, past calls written in their format into the
    assistant's text, and results as the user's text; neighbouring results share one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role != "tool":
            turns.append({"role": message.role, "content": _with_calls(message)})
            continue
        result = f"<tool_response>\n{message.text}\n</tool_response>"
        if turns and turns[-1].get("is_result"):
            turns[-1]["content"] += f"\n{result}"
        else:
            turns.append({"role": "user", "content": result, "is_result": True})
    conversation = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    explanation = _explain(tuple(tools))
    if not explanation:
        return conversation
    if conversation and conversation[0]["role"] == "system":
        conversation[0]["content"] += f"\n\n{explanation}"
        return conversation
    return [{"role": "system", "content": explanation}, *conversation]


def _with_calls(message: Message) -> Content:
    if not message.tool_calls:
        return message.content
    return "\n".join(filter(None, (message.text, *map(_write_call, message.tool_calls))))


def _write_call(call: ToolCall) -> str:
    body = f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
    return f"{HERMES.opener}{HERMES.before}{body}{HERMES.after}{HERMES.closer}"


def _explain(tools: tuple[Tool, ...]) -> str:
    if not tools:
        return ""
    lines = "\n".join(json.dumps(tool.definition()["function"], ensure_ascii=False) for tool in tools)
    example = f'{HERMES.opener}{HERMES.before}{{"name": "...", "arguments": {{...}}}}{HERMES.after}{HERMES.closer}'
    return (
        "You can call the functions below; each line is the definition of one, its parameters as a JSON schema.\n"
        f"<tools>\n{lines}\n</tools>\n"
        f"To call a function, write its name and its arguments as JSON between these marks:\n{example}\n"
        "The result comes back between <tool_response> marks. Answer in plain text where no function helps."
    )
