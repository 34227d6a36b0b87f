"""Messages to token ids, by the model's own chat template."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from jinja2 import TemplateError

from engine.errors import InvalidRequestError
from engine.inference.request import Message


def render_prompt(tokenizer: Any, messages: Iterable[Message]) -> list[int]:
    """Token ids of the conversation, up to where the answer begins.

    Raises:
        InvalidRequestError: the model has no chat template, or the template refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise InvalidRequestError("this model has no chat template, so it cannot chat: load an instruct model")
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    try:
        text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise InvalidRequestError(f"the model's chat template refuses these messages: {error}", "messages") from error
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids
