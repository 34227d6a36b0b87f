"""How families of models write tool calls, told by their chat templates."""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass
from functools import lru_cache

_ALPHANUMERIC = string.ascii_letters + string.digits
# `tools` inside a statement or an expression of the template.
_TAKES_TOOLS = re.compile(r"\{[{%][^%}]*\btools\b")


@dataclass(frozen=True, slots=True)
class CallFormat:
    """Calls are JSON objects `{"name": ..., "<arguments_key>": {...}}` between marks.

    Attributes:
        opener, closer: the marks before and after; an empty closer means that there is none.
        before, after: what a model writes between marks and object.
        wraps_each: every call has marks of its own; otherwise one pair is around all of them.
        separator: what is between two calls; None where the format knows only one call an answer.
        is_bare: an answer that begins with the object is a call without the opener.
        fill: characters that may stand beside objects, besides white space.
        has_short_ids: call ids are nine letters and digits, which is all that the template takes.
    """

    name: str
    opener: str
    closer: str = ""
    arguments_key: str = "arguments"
    before: str = ""
    after: str = ""
    wraps_each: bool = False
    separator: str | None = None
    is_bare: bool = False
    fill: str = ""
    has_short_ids: bool = False

    def make_id(self) -> str:
        """A new call's id."""
        length = 9 if self.has_short_ids else 24
        letters = "".join(secrets.choice(_ALPHANUMERIC) for _ in range(length))
        return letters if self.has_short_ids else f"call_{letters}"


HERMES = CallFormat(
    "hermes", "<tool_call>", "</tool_call>", before="\n", after="\n", wraps_each=True, separator="\n"
)  # Hermes 2 Pro and later, Qwen 2.5 and 3
LLAMA = CallFormat("llama", "<|python_tag|>", arguments_key="parameters", is_bare=True, fill=";")  # Llama 3.1 to 3.3
MISTRAL = CallFormat(
    "mistral", "[TOOL_CALLS]", before="[", after="]", separator=", ", fill="[,]", has_short_ids=True
)  # Mistral's tokenizers up to version 7


@lru_cache(maxsize=64)
def choose_format(template: str) -> tuple[CallFormat, bool]:
    """The format of the model that this chat template belongs to, and whether the template writes it.

    A template that takes no tools, or writes calls in none of the formats known here, gets Hermes' format, explained
    in the system message (plain.py).
    """
    if not _TAKES_TOOLS.search(template):
        return HERMES, False
    if "<tool_call>" in template and not any(other in template for other in ("<function=", "<arg_key>")):
        return HERMES, True
    if "[TOOL_CALLS]" in template and not any(other in template for other in ("[ARGS]", "[CALL_ID]")):
        return MISTRAL, True
    if '"parameters": ' in template and "ipython" in template:
        return LLAMA, True
    return HERMES, False
