from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from engine.console import Console
from tests.conftest import SAMPLE_NAME
from tests.engine.api.servers import build_app, serve

_QUESTION: Any = [{"role": "user", "content": "Describe a cat as JSON."}]
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 10},
        "legs": {"type": "integer", "minimum": 0, "maximum": 9},
        "colours": {"type": "array", "items": {"enum": ["black", "white"]}, "maxItems": 2},
    },
    "required": ["name", "legs", "colours"],
    "additionalProperties": False,
}
_BY_SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "cat", "schema": _SCHEMA, "strict": True}}


class Cat(BaseModel):
    name: str = Field(max_length=10)
    legs: int = Field(ge=0, le=9)
    mood: Literal["calm", "cross"]


def _ask(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": _QUESTION, "max_tokens": 200, **fields})


@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"seed": 1}, {"seed": 2, "top_p": 0.5}, {"seed": 3, "presence_penalty": 2}]
)
def test_an_answer_by_a_schema(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    choice = _ask(client, response_format=_BY_SCHEMA, **fields).choices[0]
    assert choice.finish_reason == "stop"
    jsonschema.validate(json.loads(choice.message.content), _SCHEMA)


def test_it_streams_the_same(client: openai.OpenAI) -> None:
    whole = _ask(client, response_format=_BY_SCHEMA, seed=4)
    chunks = list(_ask(client, response_format=_BY_SCHEMA, seed=4, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_several_answers_each_by_the_schema(client: openai.OpenAI) -> None:
    choices = _ask(client, response_format=_BY_SCHEMA, seed=5, n=4).choices
    assert len({choice.message.content for choice in choices}) > 1
    for choice in choices:
        jsonschema.validate(json.loads(choice.message.content), _SCHEMA)


def test_a_json_object(client: openai.OpenAI) -> None:
    answers = [_ask(client, response_format={"type": "json_object"}, seed=seed, n=3) for seed in range(2)]
    choices = [choice for answer in answers for choice in answer.choices]
    assert all(choice.message.content.startswith("{") for choice in choices)
    done = [choice for choice in choices if choice.finish_reason == "stop"]
    assert all(isinstance(json.loads(choice.message.content), dict) for choice in done)


def test_a_bound_on_tokens_is_told(client: openai.OpenAI) -> None:
    choice = _ask(client, response_format=_BY_SCHEMA, max_tokens=5).choices[0]
    assert choice.finish_reason == "length"


def test_parse_with_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny", messages=_QUESTION, response_format=Cat, seed=6, max_completion_tokens=200
    )
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Cat)


@pytest.mark.parametrize(
    ("schema", "words"), [({"not": {}}, 'Unimplemented keys: ["not"]'), ({"type": "x"}, "Invalid type: x")]
)
def test_a_schema_that_cannot_be_kept_names_the_field(
    client: openai.OpenAI, schema: dict[str, Any], words: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="cannot be enforced") as refusal:
        _ask(client, response_format=form)
    assert refusal.value.param == "response_format"
    assert words in refusal.value.message


def test_in_a_batch_with_free_requests(tiny_url: str, client: openai.OpenAI) -> None:
    """Free answers have the tokens that they have alone, and constrained ones too."""
    free = [{"seed": seed, "max_tokens": 40, "logit_bias": {"257": -100}} for seed in range(4)]
    forced: list[dict[str, Any]] = [{"seed": seed, "response_format": _BY_SCHEMA} for seed in range(4)]
    alone = [_ask(client, **fields).choices[0].message.content for fields in (*free, *forced)]

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{tiny_url}/v1", api_key="unused", max_retries=0) as many:
            asked = [
                many.chat.completions.create(**{"model": "tiny", "messages": _QUESTION, "max_tokens": 200, **fields})
                for pair in zip(free, forced, strict=True)
                for fields in pair
            ]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*asked)]

    together = asyncio.run(asyncio.wait_for(ask_all(), 60))
    assert [*together[::2], *together[1::2]] == alone


@pytest.mark.model
def test_the_sample_model_by_a_schema(sample_console: Console) -> None:
    with (
        serve(build_app(sample_console)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
    ):
        answer = _ask(client, model=SAMPLE_NAME, response_format=_BY_SCHEMA, temperature=0)
    jsonschema.validate(json.loads(answer.choices[0].message.content), _SCHEMA)
