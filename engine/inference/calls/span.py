"""Where a JSON object ends, in text that arrives in pieces."""

from __future__ import annotations

import re

_TELLING = re.compile(r'[{}\[\]"\\]')


class ObjectSpan:
    """Follows one JSON object from its opening brace. It checks brackets and strings only: whether the text is JSON is
    for a parser to say once it is complete."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = False
        self._is_escaped = False

    def feed(self, text: str) -> int | None:
        """How many characters of `text` belong to the object where it ends in it; None where it goes on."""
        at = 0
        if self._is_escaped and text:
            self._is_escaped, at = False, 1
        while (found := _TELLING.search(text, at)) is not None:
            at = found.end()
            if self._is_in_string:
                at = self._leave_string(found.group(), at, len(text))
            elif found.group() == '"':
                self._is_in_string = True
            elif found.group() in "{[":
                self._depth += 1
            elif found.group() in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return at
        return None

    def _leave_string(self, mark: str, at: int, length: int) -> int:
        """Past an escaped character, which may not have come yet."""
        if mark == '"':
            self._is_in_string = False
        elif mark == "\\":
            self._is_escaped = at >= length
            return at + 1
        return at
