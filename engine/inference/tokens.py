"""A model's tokens as they are asked for and given back: plain data, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import InvalidRequestError
from engine.inference.request import Message, check_prompt


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A text, or messages for the model's chat template, to be cut into tokens.

    Attributes:
        model: an instance's name.
        add_special_tokens: put those around that the tokenizer puts around a text; a template writes its own.
        add_generation_prompt: after messages, what the template writes where an answer begins.
        has_texts: give the text of each token too.
    """

    model: str
    prompt: str | None = None
    messages: tuple[Message, ...] = ()
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    has_texts: bool = False

    def check(self) -> None:
        """Raise InvalidRequestError for what has no tokens."""
        if self.prompt is not None:
            check_prompt(self.prompt)
        elif not self.messages:
            raise InvalidRequestError("there is nothing to tokenize: send prompt or messages", "prompt")
        for message in self.messages:
            if message.text:
                check_prompt(message.text, "messages")


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token ids, the model's context in tokens, and the text of each token where it was asked for."""

    ids: tuple[int, ...]
    context_length: int
    texts: tuple[str, ...] | None = None
