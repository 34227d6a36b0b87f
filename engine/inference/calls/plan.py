"""What a request's tools mean for its answer: how calls are read from it, and what is forced on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.inference.calls.formats import CallFormat, choose_format
from engine.inference.calls.grammar import forced_grammar, free_grammar
from engine.inference.calls.reader import CallReader
from engine.inference.request import Request
from engine.inference.structured import Grammar, content_grammar
from engine.inference.tools import ToolUse


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How one answer is constrained and read.

    Attributes:
        grammar: what the answer has to follow; None where it is free.
        reader: takes the calls out of the text; None where the request has no tools.
        shown: special tokens that are marks of the format, with the text that the reader looks for.
    """

    grammar: Grammar | None
    reader: CallReader | None
    shown: dict[int, str]


def plan_calls(tokenizer: Any, request: Request) -> CallPlan:
    """Of tools and constraint of a request, for the model with this tokenizer."""
    use = request.tools
    if use is None:
        grammar = None if request.constraint is None else content_grammar(request.constraint)
        return CallPlan(grammar, None, {})
    template = tokenizer.get_chat_template(tools=[tool.definition() for tool in use.tools])
    call_format, _ = choose_format(template)
    special = _special_marks(tokenizer, call_format)
    grammar = _choose_grammar(call_format, use, request, _mark_by(special))
    is_ambiguous = call_format.is_bare and request.constraint is not None and not use.is_required
    reader = CallReader(
        call_format,
        [tool.name for tool in use.callable],
        is_certain=grammar is not None and not request.sampling.stop and not is_ambiguous,
        max_calls=use.max_calls,
    )
    return CallPlan(grammar, reader, {token_id: text for text, token_id in special.items()})


def _choose_grammar(
    call_format: CallFormat, use: ToolUse, request: Request, mark: Callable[[str], str]
) -> Grammar | None:
    if use.is_required:
        return forced_grammar(call_format, use, None, mark)
    if request.constraint is not None:
        return forced_grammar(call_format, use, request.constraint, mark)
    return free_grammar(call_format, use, mark) if any(tool.is_strict for tool in use.tools) else None


def _special_marks(tokenizer: Any, call_format: CallFormat) -> dict[str, int]:
    """The marks that are special tokens of the model, which have no text of their own in an answer."""
    marks = {call_format.opener, call_format.closer}
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: token_id for token_id, token in added if token.special and token.content in marks}


def _mark_by(special: dict[str, int]) -> Callable[[str], str]:
    def mark(text: str) -> str:
        return f"<[{special[text]}]>" if text in special else json.dumps(text)

    return mark
