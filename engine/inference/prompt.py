"""Messages and plain prompts to token ids, by the model's own chat template and tokenizer."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from jinja2 import TemplateError

from engine.errors import InvalidRequestError
from engine.inference.calls.formats import choose_format
from engine.inference.calls.plain import write_plainly
from engine.inference.image_prompt import ImagePrompt
from engine.inference.images import Content, decode
from engine.inference.request import Message
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.inference.tools import Tool
from engine.inference.vision import Vision

_PROBE = "Hello"
# Pictures of so many requests are unpacked and made into numbers at once: each may take some 400 MB for that moment.
_picture_slots = threading.BoundedSemaphore(4)


class CheckText(Protocol):
    """Raises for a text that is not worth cutting into tokens; told also how many more its pictures take than their
    marks."""

    def __call__(self, text: str, num_more: int = 0, /) -> None:
        """Raise, or not."""


def _accept(_text: str, _num_more: int = 0, /) -> None:
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
    text = render_text(tokenizer, messages, tools, add_generation_prompt=add_generation_prompt)
    check_text(text)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def render_text(
    tokenizer: Any, messages: Iterable[Message], tools: Sequence[Tool] = (), *, add_generation_prompt: bool = True
) -> str:
    """The conversation as text, a mark of the model's own in the place of each picture. Raises as `render_prompt`."""
    if not tokenizer.chat_template:
        raise InvalidRequestError("this model has no chat template, so it cannot chat: load an instruct model")
    definitions = [tool.definition() for tool in tools] or None
    _, is_known = choose_format(tokenizer.get_chat_template(tools=definitions))
    turns = [_turn(message) for message in messages] if is_known else write_plainly(messages, tools)
    takes_text = takes_strings(tokenizer)
    conversation = [{**turn, "content": _content(turn["content"], takes_text=takes_text)} for turn in turns]
    try:
        return render_turns(
            tokenizer, conversation, definitions if is_known else None, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise InvalidRequestError(f"the model's chat template refuses these messages: {error}", "messages") from error


def render_turns(
    tokenizer: Any, turns: Sequence[Mapping[str, Any]], tools: Any = None, *, add_generation_prompt: bool = True
) -> str:
    """Turns as the template takes them, as text. Raises TemplateError where it refuses them."""
    text: str = tokenizer.apply_chat_template(
        list(turns), tools=tools, tokenize=False, add_generation_prompt=add_generation_prompt
    )
    return text


def takes_strings(tokenizer: Any) -> bool:
    """Whether the template shows a content that is a plain text. Templates of some models that take images read the
    content as a list of parts alone, and drop what is none."""
    with _takes_strings_lock:
        known = _takes_strings.setdefault(tokenizer, {})
        template = str(tokenizer.chat_template)
        if template not in known:
            known[template] = _shows(tokenizer, _PROBE) or not _shows(tokenizer, _content(_PROBE, takes_text=False))
        return known[template]


def _shows(tokenizer: Any, content: Any) -> bool:
    try:
        return _PROBE in render_turns(tokenizer, [{"role": "user", "content": content}])
    except (TemplateError, TypeError):
        return False


def _content(content: Content, *, takes_text: bool) -> Any:
    if isinstance(content, str):
        return content if takes_text else [{"type": "text", "text": content}]
    return [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in content]


def render_image_prompt(
    vision: Vision,
    messages: Sequence[Message],
    tools: Sequence[Tool] = (),
    *,
    add_generation_prompt: bool = True,
    check_text: CheckText = _accept,
) -> ImagePrompt:
    """As `render_prompt`, for a conversation with pictures: its token ids, and what the model is shown.

    Raises:
        InvalidRequestError: see `render_prompt`; or a picture is damaged, the processor refuses it, or a text holds
            the mark that stands for an image.
    """
    images = [image for message in messages for image in message.images]
    place = images[0].place
    texts = [text for message in messages for text in message.texts()]
    mark = next((mark for mark in vision.image_marks if any(mark in text for text in texts)), None)
    if mark is not None:
        raise InvalidRequestError(f"a text holds {mark}, which stands for an image here: leave it out", "messages")
    text = render_text(vision.tokenizer, messages, tools, add_generation_prompt=add_generation_prompt)
    with _picture_slots:
        pictures = [decode(image) for image in images]
        check_text(text, vision.count_tokens(pictures) - len(pictures))
        return vision.read(text, pictures, place)


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


def tokenize(
    tokenizer: Any,
    request: TokenizeRequest,
    context_length: int,
    vision: Vision | None = None,
    check_text: CheckText = _accept,
) -> Tokens:
    """What `request` asks for, as the model would read it; `vision` where its messages hold pictures. `check_text` is
    asked as in `encode_prompt`.

    Raises:
        InvalidRequestError: the template refuses the messages, or there is none.
    """
    begins_answer = request.add_generation_prompt
    if request.prompt is None and vision is not None:
        images = render_image_prompt(
            vision, request.messages, add_generation_prompt=begins_answer, check_text=check_text
        )
        ids = images.token_ids
    elif request.prompt is None:
        ids = render_prompt(tokenizer, request.messages, add_generation_prompt=begins_answer, check_text=check_text)
    else:
        check_text(request.prompt)
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


_takes_strings: WeakKeyDictionary[Any, dict[str, bool]] = WeakKeyDictionary()
_takes_strings_lock = threading.Lock()
