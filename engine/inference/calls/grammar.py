"""Grammars of answers that hold calls, in the Lark dialect of llguidance.

Rules: `object` is one call as a JSON object, `calls` is all that a model writes for its calls, marks included.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from engine.inference.calls.formats import CallFormat
from engine.inference.structured import Grammar, SchemaOf, json_rule
from engine.inference.tools import JsonSchema, ToolUse

# Writes a mark: as text, or as the one token that stands for it.
Mark = Callable[[str], str]


def forced_grammar(call_format: CallFormat, use: ToolUse, content: JsonSchema | None, mark: Mark) -> Grammar:
    """One call or several, or where `content` is given, that instead."""
    rules = [*_object_rules(call_format, use), *_calls_rules(call_format, use, mark)]
    start = "start: calls" if content is None else "start: calls | content"
    if content is not None:
        rules.append(f"content: {json_rule(content)}")
    return Grammar("\n".join([start, *rules]), _schemas(use, content))


def free_grammar(call_format: CallFormat, use: ToolUse, mark: Mark) -> Grammar:
    """Any text, with calls in it held to their schemas."""
    rules = [*_object_rules(call_format, use), "TEXT: /(.|\\n)*/"]
    opener = mark(call_format.opener)
    if call_format.is_bare:
        rules += ["start: object | PLAIN", "PLAIN: /[^{](.|\\n)*/"]
    elif opener == _literal(call_format.opener):
        rules += ["start: marked* end", "end: TEXT", f"head[lazy]: TEXT {opener}"]
        rules.append(f"marked: head {_inner(call_format, use, mark)}")
    else:
        rules += ["start: marked* end", "end: TEXT", f"marked: TEXT {opener} {_inner(call_format, use, mark)}"]
    return Grammar("\n".join(["%llguidance {}", *rules]), _schemas(use, None))


def _object_rules(call_format: CallFormat, use: ToolUse) -> list[str]:
    rules = []
    for index, tool in enumerate(use.callable):
        head = f'{{"name": {json.dumps(tool.name)}, "{call_format.arguments_key}": '
        rules.append(f'call_{index}: {_literal(head)} arguments_{index} "}}"')
        rules.append(f"arguments_{index}: {json_rule(tool.arguments_schema())}")
    return ["object: " + " | ".join(f"call_{index}" for index in range(len(use.callable))), *rules]


def _calls_rules(call_format: CallFormat, use: ToolUse, mark: Mark) -> list[str]:
    if call_format.is_bare:
        return ["calls: object"]
    rules = [f"marked: {mark(call_format.opener)} {_inner(call_format, use, mark)}"]
    if call_format.wraps_each and use.max_calls is None:
        return [*rules, f"calls: marked ({_literal(call_format.separator or '')} marked)*"]
    return [*rules, "calls: marked"]


def _inner(call_format: CallFormat, use: ToolUse, mark: Mark) -> str:
    """What follows the opener, to the end of the closer."""
    inner = "object"
    if not call_format.wraps_each and use.max_calls is None:
        inner = f"object ({_literal(call_format.separator or '')} object)*"
    parts = [_literal(call_format.before), inner, _literal(call_format.after)]
    return " ".join(filter(None, [*parts, mark(call_format.closer) if call_format.closer else ""]))


def _literal(text: str) -> str:
    return json.dumps(text) if text else ""


def _schemas(use: ToolUse, content: JsonSchema | None) -> tuple[SchemaOf, ...]:
    tools: Iterable[SchemaOf] = (SchemaOf("tools", tool.arguments_schema(), tool.name) for tool in use.callable)
    return (*tools, *([SchemaOf("response_format", content)] if content is not None else []))
