from __future__ import annotations

import json
import random
from collections.abc import Callable

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequestError
from engine.inference.calls.formats import HERMES, LLAMA, MISTRAL, CallFormat
from engine.inference.calls.grammar import forced_grammar, free_grammar
from engine.inference.calls.reader import CallReader
from engine.inference.structured import Matcher, Vocabulary
from engine.inference.tools import JsonSchema, Tool, ToolUse, join_pieces
from tests.fakes import byte_tokenizer

_TOKENIZER = byte_tokenizer()
_END = 257
_ADD = Tool(
    "add",
    parameters={
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["x"],
        "additionalProperties": False,
    },
)
_NOTHING = Tool("nothing")
_USE = ToolUse((_ADD, _NOTHING), is_required=True)
_FORMATS = [HERMES, MISTRAL, LLAMA]
_CONTENT = JsonSchema({"type": "object", "properties": {"ok": {"type": "boolean"}}, "additionalProperties": False})


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(_TOKENIZER, 258, [_END])


def _special(text: str) -> str:
    """As if the format's opener were a token of its own: this tokenizer's first mark."""
    return "<[256]>" if text in (MISTRAL.opener, HERMES.opener) else json.dumps(text)


def _walk(matcher: Matcher, seed: int) -> str:
    draw = random.Random(seed)
    ids: list[int] = []
    while not matcher.is_complete and len(ids) < 2_000:
        allowed: list[int] = matcher.allowed().nonzero().flatten().tolist()
        if _END in allowed and draw.random() < 0.4:
            break
        ids.append(draw.choice([token_id for token_id in allowed if token_id != _END]))
        matcher.accept(ids[-1])
    return "".join(MISTRAL.opener if token_id == 256 else _TOKENIZER.decode([token_id]) for token_id in ids)


@pytest.mark.parametrize("mark", [json.dumps, _special])
@pytest.mark.parametrize("call_format", _FORMATS, ids=lambda item: item.name)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32))
def test_a_forced_answer_is_calls_alone(
    vocabulary: Vocabulary, call_format: CallFormat, mark: Callable[[str], str], seed: int
) -> None:
    text = _walk(vocabulary.compile(forced_grammar(call_format, _USE, None, mark)), seed)
    text = text.replace(MISTRAL.opener, call_format.opener)
    for is_certain in (True, False):
        reader = CallReader(call_format, ["add", "nothing"], is_certain=is_certain)
        read = reader.feed(text)
        calls = join_pieces(read.pieces)
        assert (read.text + reader.flush(), bool(calls)) == ("", True)
        for call in calls:
            tool = {"add": _ADD, "nothing": _NOTHING}[call.name]
            jsonschema.validate(call.parsed(), tool.parameters)


@pytest.mark.parametrize("call_format", _FORMATS, ids=lambda item: item.name)
@pytest.mark.parametrize("seed", range(3))
def test_one_that_is_named_comes_once(vocabulary: Vocabulary, call_format: CallFormat, seed: int) -> None:
    use = ToolUse((_ADD, _NOTHING), is_required=True, only="add")
    matcher = vocabulary.compile(forced_grammar(call_format, use, None, json.dumps))
    reader = CallReader(call_format, ["add"], is_certain=True)
    (call,) = join_pieces(reader.feed(_walk(matcher, seed)).pieces)
    assert call.name == "add"


@pytest.mark.parametrize("seed", range(8))
def test_calls_or_content_by_a_schema(vocabulary: Vocabulary, seed: int) -> None:
    text = _walk(vocabulary.compile(forced_grammar(HERMES, _USE, _CONTENT, json.dumps)), seed)
    reader = CallReader(HERMES, ["add", "nothing"], is_certain=True)
    read = reader.feed(text)
    content = read.text + reader.flush()
    assert bool(content) != bool(read.pieces)
    if content:
        jsonschema.validate(json.loads(content), _CONTENT.schema)


def _accepts(matcher: Matcher, text: str, marks: dict[str, int]) -> bool:
    for mark, token_id in marks.items():
        text = text.replace(mark, chr(0xE000 + token_id))
    for letter in text:
        ids = [ord(letter) - 0xE000] if ord(letter) >= 0xE000 else _TOKENIZER(letter)["input_ids"]
        for token_id in ids:
            if not matcher.allowed()[token_id]:
                return False
            matcher.accept(token_id)
    return matcher.is_complete or bool(matcher.allowed()[_END])


_FREE: list[tuple[CallFormat, bool, str, bool]] = [
    (HERMES, False, "", True),
    (HERMES, False, "Grüße, <b>\n", True),
    (HERMES, False, 'So: <tool_call>\n{"name": "add", "arguments": {"x":1}}\n</tool_call>', True),
    (HERMES, False, 'So: <tool_call>\n{"name": "add", "arguments": {"x":"1', False),
    (HERMES, False, 'So: <tool_call>\n{"name": "sub', False),
    (HERMES, True, 'So: <tool_call>\n{"name": "add", "arguments": {"x":1}}\n</tool_call> and so', True),
    (
        MISTRAL,
        True,
        'So: [TOOL_CALLS][{"name": "add", "arguments": {"x":1}}, {"name": "nothing", "arguments": {}}]',
        True,
    ),
    (MISTRAL, True, 'So: [TOOL_CALLS][{"name": "add", "arguments": {}', False),
    (LLAMA, False, '{"name": "add", "parameters": {"x":1}}', True),
    (LLAMA, False, '{"name": "add", "arguments": {', False),
    (LLAMA, False, "Plain {text}", True),
]


@pytest.mark.parametrize(("call_format", "is_special", "text", "is_allowed"), _FREE)
def test_free_text_and_calls_held_to_their_schemas(
    vocabulary: Vocabulary, call_format: CallFormat, is_special: bool, text: str, is_allowed: bool
) -> None:
    matcher = vocabulary.compile(free_grammar(call_format, _USE, _special if is_special else json.dumps))
    assert _accepts(matcher, text, {call_format.opener: 256} if is_special else {}) == is_allowed


def test_parameters_that_cannot_be_kept_name_the_tool(vocabulary: Vocabulary) -> None:
    use = ToolUse((_ADD, Tool("odd", parameters={"not": {}})), is_required=True)
    with pytest.raises(InvalidRequestError, match="tools: the schema of odd cannot be enforced") as refusal:
        vocabulary.compile(forced_grammar(HERMES, use, None, json.dumps))
    assert refusal.value.param == "tools"
