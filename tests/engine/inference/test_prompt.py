from __future__ import annotations

from dataclasses import replace

import pytest
from tokenizers import normalizers

from engine.errors import InvalidRequestError
from engine.inference.prompt import detokenize, encode_prompt, render_prompt, tokenize
from engine.inference.request import Message
from engine.inference.tokens import TokenizeRequest
from engine.inference.tools import Tool, ToolCall
from tests.fakes import byte_tokenizer


def test_ids_are_those_of_the_rendered_template() -> None:
    tokenizer = byte_tokenizer()
    ids = render_prompt(tokenizer, [Message("system", "Be kind."), Message("user", "Grüße")])
    assert tokenizer.decode(ids) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nGrüße<|im_end|>\n<|im_start|>assistant\n"
    )


def test_ids_end_where_the_answer_begins() -> None:
    tokenizer = byte_tokenizer()
    ids = render_prompt(tokenizer, [Message("user", "Hi")])
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")


def test_a_model_without_a_template_cannot_chat() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(InvalidRequestError, match="no chat template"):
        render_prompt(tokenizer, [Message("user", "Hi")])


def test_a_template_that_refuses_is_the_callers_error() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidRequestError, match="roles must alternate") as refusal:
        render_prompt(tokenizer, [Message("user", "Hi"), Message("user", "Ho")])
    assert refusal.value.param == "messages"


# As Qwen 2.5 has it, in short.
_TOOL_TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for message in messages %}{{ message.role }}: {{ message.content }}"
    "{% for call in message.tool_calls %}<tool_call>{{ call.function.name }} {{ call.function.arguments | tojson }}"
    "</tool_call>{% endfor %}{% if message.tool_call_id %}[{{ message.name }}]{% endif %} / {% endfor %}"
)
_TALK = [
    Message("user", "Hi"),
    Message("assistant", "", (ToolCall("1", "add", '{"x": "ü"}'),)),
    Message("tool", "3", tool_call_id="1", name="add"),
]


def _render(template: str, tools: list[Tool]) -> str:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    text: str = tokenizer.decode(render_prompt(tokenizer, _TALK, tools))
    return text


def test_a_template_that_takes_tools_gets_them() -> None:
    assert _render(_TOOL_TEMPLATE, [Tool("add", "Adds.")]) == (
        '<tools>{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": '
        '{"type": "object", "properties": {}, "additionalProperties": false}}}</tools>'
        'user: Hi / assistant: <tool_call>add {"x": "ü"}</tool_call> / tool: 3[add] / '
    )


def test_past_calls_are_told_without_tools_too() -> None:
    assert _render(_TOOL_TEMPLATE, []).startswith('user: Hi / assistant: <tool_call>add {"x": "ü"}</tool_call>')


def test_one_that_takes_none_gets_them_as_text() -> None:
    tokenizer = byte_tokenizer()
    text = tokenizer.decode(render_prompt(tokenizer, _TALK, [Tool("add", "Adds.")]))
    assert text.startswith("<|im_start|>system\nYou can call the functions below")
    assert '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"x": "ü"}}\n</tool_call>' in text
    assert "<|im_start|>user\n<tool_response>\n3\n</tool_response>" in text


def test_a_plain_prompt_has_the_ids_of_its_text() -> None:
    assert byte_tokenizer().decode(encode_prompt(byte_tokenizer(), "Grüße", 258)) == "Grüße"


def test_ids_are_taken_as_they_are_within_the_vocabulary() -> None:
    assert encode_prompt(byte_tokenizer(), (5, 257), 258) == [5, 257]
    for outside in (-1, 258):
        with pytest.raises(
            InvalidRequestError, match=f"input holds token {outside}; the model's ids run from 0 to 257"
        ):
            encode_prompt(byte_tokenizer(), (5, outside), 258, "input")


def test_a_text_without_tokens_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(InvalidRequestError, match="prompt has no token") as refusal:
        encode_prompt(tokenizer, "  ", 258)
    assert refusal.value.param == "prompt"


def test_tokens_there_and_back() -> None:
    tokenizer = byte_tokenizer()
    tokens = tokenize(tokenizer, TokenizeRequest("m", "a b", has_texts=True), 99)
    assert tokens.texts == ("a", "Ġ", "b")
    assert tokens.context_length == 99
    assert detokenize(tokenizer, tokens.ids, 258) == "a b"
    assert tokenize(tokenizer, TokenizeRequest("m", "a b"), 99).texts is None


def test_messages_as_tokens_with_and_without_the_beginning_of_an_answer() -> None:
    tokenizer = byte_tokenizer()
    request = TokenizeRequest("m", messages=(Message("user", "Hi"),))
    ids = tokenize(tokenizer, request, 99).ids
    assert list(ids) == render_prompt(tokenizer, request.messages)
    shorter = tokenize(tokenizer, replace(request, add_generation_prompt=False), 99).ids
    assert detokenize(tokenizer, shorter, 258).endswith("Hi<|im_end|>\n")
