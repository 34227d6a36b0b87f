"""Messages and plain prompts to token ids, by the model's own chat template and tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jinja2 import TemplateError

from engine.errors import InvalidRequestError
from engine.inference.calls.formats import choose_format
from engine.inference.calls.plain import write_plainly
from engine.inference.request import Message
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.inference.tools import Tool

# Raises for a text that is not worth cutting into tokens.
CheckText = Callable[[str], None]


def _accept(_text: str) -> None:
    """Any text is."""


def render_prompt(
    tokenizer: Any,
    messages: Iterable[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool = True,
    check_text: CheckText = _accept,
) -> list[int]:
    """Token ids of the conversation, up to where the answer begins. Tools are given to the template where it takes
    them, and are explained in the system message where it does not.

    Raises:
        InvalidRequestError: the model has no chat template, or the template refuses the conversation.
    """
    if not tokenizer.chat_template:
        raise InvalidRequestError("this model has no chat template, so it cannot chat: load an instruct model")
    definitions = [tool.definition() for tool in tools] or None
    _, is_known = choose_format(tokenizer.get_chat_template(tools=definitions))
    conversation = [_turn(message) for message in messages] if is_known else write_plainly(messages, tools)
    try:
        text = tokenizer.apply_chat_template(
            conversation,
            tools=definitions if is_known else None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except TemplateError as error:
        raise InvalidRequestError(f"the model's chat template refuses these messages: {error}", "messages") from error
    check_text(text)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _turn(message: Message) -> dict[str, Any]:
    """As templates that know tools take it: arguments as values."""
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [
            {"type": "function", "id": call.call_id, "function": {"name": call.name, "arguments": call.parsed()}}
            for call in message.tool_calls
        ]
    given = {"tool_call_id": message.tool_call_id, "name": message.name}
    return turn | {key: value for key, value in given.items() if value is not None}


def encode_prompt(
    tokenizer: Any,
    prompt: str | tuple[int, ...],
    vocab_size: int,
    param: str = "prompt",
    check_text: CheckText = _accept,
) -> list[int]:
    """Token ids of a plain prompt: text with the special tokens that the tokenizer puts around one, ids as they are.

    Raises:
        InvalidRequestError: an id is outside the vocabulary, or the text has no token.
    """
    if not isinstance(prompt, str):
        _check_ids(prompt, vocab_size, param)
        return list(prompt)
    check_text(prompt)
    ids: list[int] = tokenizer(prompt)["input_ids"]
    if not ids:
        raise InvalidRequestError(f"{param} has no token: send text that the model can read", param)
    return ids


def tokenize(tokenizer: Any, request: TokenizeRequest, context_length: int) -> Tokens:
    """What `request` asks for, as the model would read it.

    Raises:
        InvalidRequestError: the template refuses the messages, or there is none.
    """
    if request.prompt is None:
        ids = render_prompt(tokenizer, request.messages, add_generation_prompt=request.add_generation_prompt)
    else:
        ids = tokenizer(request.prompt, add_special_tokens=request.add_special_tokens)["input_ids"]
    texts = tuple(tokenizer.convert_ids_to_tokens(ids)) if request.has_texts else None
    return Tokens(tuple(ids), context_length, texts)


def detokenize(tokenizer: Any, token_ids: tuple[int, ...], vocab_size: int, param: str = "tokens") -> str:
    """Their text, special tokens included. Raises InvalidRequestError for an id outside the vocabulary."""
    _check_ids(token_ids, vocab_size, param)
    text: str = tokenizer.decode(list(token_ids))
    return text


def _check_ids(token_ids: tuple[int, ...], vocab_size: int, param: str) -> None:
    outside = next((token_id for token_id in token_ids if not 0 <= token_id < vocab_size), None)
    if outside is not None:
        raise InvalidRequestError(
            f"{param} holds token {outside}; the model's ids run from 0 to {vocab_size - 1}", param
        )
