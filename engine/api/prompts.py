"""Plain prompts as OpenAI's bodies have them: a text, several, token ids, or several lists of those."""

from __future__ import annotations

from typing import Annotated, TypeVar, cast

from pydantic import Field, StrictInt

from engine.api.schemas import in_one_sentence

Prompt = str | tuple[int, ...]
_Item = TypeVar("_Item")
# Read up to the first item that is wrong, as each that is costs a kilobyte.
_List = Annotated[list[_Item], Field(fail_fast=True)]


Prompts = Annotated[
    str | _List[str] | _List[StrictInt] | _List[_List[StrictInt]],
    in_one_sentence("prompt", "send a text, a list of texts, a list of token ids, or a list of such lists"),
]


def split_prompts(given: Prompts) -> tuple[Prompt, ...]:
    """The single prompts. A list of ids is one of them; an empty list is one empty prompt, which no model takes."""
    if isinstance(given, str):
        return (given,)
    if all(isinstance(item, int) for item in given):
        return (tuple(cast(list[int], given)),)
    return tuple(item if isinstance(item, str) else tuple(cast(list[int], item)) for item in given)
