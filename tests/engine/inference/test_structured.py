from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequestError
from engine.inference.structured import (
    MAX_SCHEMA_LETTERS,
    GrammarError,
    Matcher,
    Vocabulary,
    content_grammar,
    vocabulary_of,
)
from engine.inference.tools import JsonSchema
from tests.fakes import byte_tokenizer

_TOKENIZER = byte_tokenizer()
_END = 257
_SIZE = 300
_PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
        "of": {"anyOf": [{"type": "null"}, {"type": "number", "exclusiveMaximum": 1}]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
_TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"const": 1}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
            "required": ["value", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
_SCHEMAS = [
    _PERSON,
    _TREE,
    {"type": "string", "pattern": "^[a-c]{2,5}$"},
    {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
    {"oneOf": [{"type": "integer"}, {"type": "boolean"}]},
    {"type": "array", "prefixItems": [{"type": "boolean"}], "items": {"type": "null"}, "minItems": 2, "maxItems": 4},
]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(_TOKENIZER, _SIZE, [_END])


def _allowed(matcher: Matcher) -> list[int]:
    ids: list[int] = matcher.allowed().nonzero().flatten().tolist()
    return ids


def _walk(matcher: Matcher, seed: int, most: int = 3_000) -> str:
    """An answer drawn from what is allowed, ended as soon as that may be."""
    draw = random.Random(seed)
    ids: list[int] = []
    while not matcher.is_complete and len(ids) < most:
        allowed = _allowed(matcher)
        if _END in allowed:
            break
        closing = [token_id for token_id in allowed if _TOKENIZER.decode([token_id]) in '"}]']
        ids.append(closing[0] if closing and draw.random() < 0.3 else draw.choice(allowed))
        matcher.accept(ids[-1])
    text: str = _TOKENIZER.decode(ids)
    return text


@pytest.mark.parametrize("schema", _SCHEMAS, ids=range(len(_SCHEMAS)))
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32))
def test_whatever_is_drawn_is_valid(vocabulary: Vocabulary, schema: dict[str, Any], seed: int) -> None:
    text = _walk(vocabulary.compile(content_grammar(JsonSchema(schema))), seed)
    jsonschema.validate(json.loads(text), schema, format_checker=jsonschema.FormatChecker())


def test_white_space_is_bounded(vocabulary: Vocabulary) -> None:
    matcher = vocabulary.compile(content_grammar(JsonSchema(_PERSON)))
    for letter in '{"name": "x", "age": ':
        (token_id,) = _TOKENIZER(letter)["input_ids"]
        assert token_id in _allowed(matcher)
        matcher.accept(token_id)
    assert set(_TOKENIZER.decode(_allowed(matcher))) == set("0123456789")


def test_the_mask_is_as_wide_as_the_logits(vocabulary: Vocabulary) -> None:
    allowed = vocabulary.compile(content_grammar(JsonSchema(_PERSON))).allowed()
    assert (allowed.dtype, allowed.shape) == (torch.bool, (_SIZE,))
    assert not allowed[256:].any()


def test_the_end_is_allowed_where_more_could_come(vocabulary: Vocabulary) -> None:
    matcher = vocabulary.compile(content_grammar(JsonSchema({"type": "integer"})))
    matcher.accept(_TOKENIZER("7")["input_ids"][0])
    assert not matcher.is_complete
    assert _END in _allowed(matcher)


def test_matchers_of_one_grammar_do_not_meet(vocabulary: Vocabulary) -> None:
    grammar = content_grammar(JsonSchema(_TREE))
    first, second = vocabulary.compile(grammar), vocabulary.compile(grammar)
    first.accept(_TOKENIZER("{")["input_ids"][0])
    assert _allowed(second) == _TOKENIZER("{")["input_ids"]
    assert _allowed(first) != _allowed(second)


def test_a_token_that_is_not_allowed_is_an_error(vocabulary: Vocabulary) -> None:
    matcher = vocabulary.compile(content_grammar(JsonSchema(_TREE)))
    matcher.accept(_TOKENIZER("x")["input_ids"][0])
    assert not matcher.is_complete
    with pytest.raises(GrammarError):
        matcher.allowed()


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"not": {}}, 'Unimplemented keys: ["not"]'),
        ({"type": "foo"}, "Invalid type: foo"),
        ({"$ref": "#/$defs/none"}, "does not exist"),
        ({"$ref": "https://example.com/x"}, "Default retriever does not fetch resources"),
        ({"type": "string", "pattern": "(?=a)b"}, "regex parse error"),
        ({"type": "string", "minLength": 3, "maxLength": 1}, "Unsatisfiable"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "object", "x-guidance": {"lenient": True}, "not": {}}, "Unimplemented"),
        ({"type": "array", "items": {"type": "object", "minProperties": 2}}, "minProperties above 1"),
        ({"enum": ["x" * MAX_SCHEMA_LETTERS]}, "at most 120,000"),
        ({"const": "\ud800"}, "cannot be enforced"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(vocabulary: Vocabulary, schema: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        vocabulary.compile(content_grammar(JsonSchema(schema)))
    assert words in str(refusal.value)
    assert refusal.value.param == "response_format"


@pytest.mark.parametrize("schema", [{"type": "integer", "not": {"const": 3}}, {"type": "object", "minProperties": 2}])
def test_or_only_what_can_be_kept_is_when_that_was_asked_for(vocabulary: Vocabulary, schema: dict[str, Any]) -> None:
    matcher = vocabulary.compile(content_grammar(JsonSchema(schema, is_strict=False)))
    assert isinstance(json.loads(_walk(matcher, 1)), int | dict)


def test_a_model_has_one_vocabulary() -> None:
    tokenizer = byte_tokenizer()
    assert vocabulary_of(tokenizer, _SIZE, [_END]) is vocabulary_of(tokenizer, _SIZE, [_END])
    assert vocabulary_of(byte_tokenizer(), _SIZE, [_END]) is not vocabulary_of(tokenizer, _SIZE, [_END])


def test_a_tokenizer_that_cannot_be_read_is_told() -> None:
    with pytest.raises(InvalidRequestError, match="cannot be held to a grammar"):
        vocabulary_of(byte_tokenizer(), 10, [_END])
