from __future__ import annotations

import pytest

from engine.errors import InvalidRequestError
from engine.inference.prompt import render_prompt
from engine.inference.request import Message
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
