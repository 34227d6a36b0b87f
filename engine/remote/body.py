"""A request as the JSON body of OpenAI's API. Pure."""

from __future__ import annotations

from typing import Any

from engine.inference.openai_fields import chat_logprob_fields, content_field, sampling_fields
from engine.inference.request import Message, Request
from engine.inference.tools import JsonSchema, Tool, ToolUse


def to_body(request: Request, model: str, seed: int) -> tuple[str, dict[str, Any]]:
    """The path and the body of a streamed answer. Temperature and top-p are always sent, as servers differ in what
    they take where none is given; so is the seed, so that the answer can be told how to be had again."""
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling_fields(sampling),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
    }
    if request.prompt is not None:
        return "/completions", body | _completion_fields(request)
    return "/chat/completions", body | _chat_fields(request)


def _chat_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {"messages": [_message(message) for message in request.messages]}
    if request.tools is not None:
        fields |= _tool_fields(request.tools)
    if request.constraint is not None:
        fields["response_format"] = _response_format(request.constraint)
    return fields | chat_logprob_fields(request.sampling)


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": content_field(message.content)}
    if message.tool_calls:
        fields["tool_calls"] = [
            {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        fields["name"] = message.name
    return fields


def _tool_fields(use: ToolUse) -> dict[str, Any]:
    choice: Any = "required" if use.is_required else "auto"
    if use.only is not None:
        choice = {"type": "function", "function": {"name": use.only}}
    fields = {"tools": [_tool(tool) for tool in use.tools], "tool_choice": choice}
    return fields if use.is_parallel else fields | {"parallel_tool_calls": False}


def _tool(tool: Tool) -> dict[str, Any]:
    definition = tool.definition()
    if tool.is_strict:
        definition["function"]["strict"] = True
    return definition


def _response_format(constraint: JsonSchema) -> dict[str, Any]:
    schema = {"name": "answer", "schema": dict(constraint.schema), "strict": constraint.is_strict}
    return {"type": "json_schema", "json_schema": schema}


def _completion_fields(request: Request) -> dict[str, Any]:
    prompt = list(request.prompt) if isinstance(request.prompt, tuple) else request.prompt
    fields: dict[str, Any] = {"prompt": prompt}
    if request.sampling.top_logprobs is not None:
        fields["logprobs"] = request.sampling.top_logprobs
    return fields
