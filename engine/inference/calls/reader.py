"""Tool calls out of an answer's text as it arrives."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from engine.inference.calls.formats import CallFormat
from engine.inference.calls.span import ObjectSpan
from engine.inference.text import overlap
from engine.inference.tools import CallPiece

_HEAD = re.compile(r'\{"name": "([^"]+)", "\w+": ')


@dataclass(slots=True)
class Read:
    """What new text came to: content for the user, and pieces of calls."""

    text: str = ""
    pieces: list[CallPiece] = field(default_factory=list)


class CallReader:
    """Splits the text of one answer into content and calls.

    What is no complete and well-formed call to one of `names` is content, marks and all. So a call is held back until
    its last brace, unless `is_certain` says that a grammar makes every call well-formed: then its name and its
    arguments are given out as they come, and the beginning of one that was cut off before them is dropped. White
    space around calls and what separates them is dropped.
    """

    def __init__(
        self,
        call_format: CallFormat,
        names: Collection[str],
        *,
        is_certain: bool = False,
        max_calls: int | None = None,
    ) -> None:
        self._format = call_format
        self._names = frozenset(names)
        self._is_certain = is_certain
        self._max_calls = max_calls
        self._num_calls = 0
        self._state: Callable[[Read], bool] = self._read_between if call_format.is_bare else self._read_text
        self._coming = ""  # not looked at yet
        self._kept = ""  # since the opener; content if no call comes of it
        self._is_after_call = False  # and nothing but separators came since
        self._space = ""  # dropped if a call follows
        self._span = ObjectSpan()

    @property
    def is_full(self) -> bool:
        """No further call may come, so the answer is complete."""
        return self._max_calls is not None and self._num_calls >= self._max_calls

    def feed(self, text: str) -> Read:
        """What is certain now."""
        read = Read()
        self._coming += text
        while self._coming and not self.is_full and self._state(read):
            pass
        return read

    def flush(self) -> str:
        """The content that is left when no more text can come."""
        read = Read()
        is_in_certain_call = self._is_certain and self._state != self._read_text
        if not self.is_full and not is_in_certain_call:
            self._give(read, self._kept + self._coming)
            if not self._num_calls:
                read.text += self._space
        self._kept = self._coming = self._space = ""
        return read.text

    def _give(self, read: Read, text: str) -> None:
        whole = self._space + text
        content = whole.rstrip()
        self._space = whole[len(content) :]
        read.text += content

    def _go_back_to_text(self, read: Read) -> bool:
        """No call comes of what was kept."""
        self._give(read, self._kept)
        self._kept, self._is_after_call = "", False
        self._state = self._read_text
        return True

    def _read_text(self, read: Read) -> bool:
        before, opener, after = self._coming.partition(self._format.opener)
        if opener:
            self._give(read, before)
            self._kept, self._coming = opener, after
            self._state = self._read_between
            return True
        held = overlap(before, self._format.opener)
        self._give(read, before[: len(before) - held])
        self._coming = before[len(before) - held :]
        return False

    def _read_between(self, read: Read) -> bool:
        """After the opener, or after a call: an object begins, the closer comes, or neither."""
        closer = self._format.closer
        rest = self._coming.lstrip(f" \t\r\n{self._format.fill}")
        if not self._is_after_call:
            self._kept += self._coming[: len(self._coming) - len(rest)]
        self._coming = rest
        if not rest or (closer and rest != closer and closer.startswith(rest)):
            return False
        if rest.startswith("{"):
            self._span = ObjectSpan()
            self._state = self._read_head if self._is_certain else self._read_object
            return True
        if closer and rest.startswith(closer) and self._is_after_call:
            self._coming = rest.removeprefix(closer)
        return self._go_back_to_text(read)

    def _read_object(self, read: Read) -> bool:
        """A whole call at once."""
        end = self._span.feed(self._coming)
        self._kept += self._coming if end is None else self._coming[:end]
        self._coming = "" if end is None else self._coming[end:]
        if end is None:
            return False
        call = _parse_call(self._kept[self._kept.index("{") :], self._names)
        if call is None:
            return self._go_back_to_text(read)
        name, arguments = call
        self._begin_call(read, name)
        read.pieces.append(CallPiece(self._num_calls, arguments))
        self._end_call()
        return True

    def _read_head(self, read: Read) -> bool:
        head = _HEAD.match(self._coming)
        if head is None:
            return False
        self._begin_call(read, head.group(1))
        self._coming = self._coming[head.end() :]
        self._state = self._read_arguments
        return True

    def _read_arguments(self, read: Read) -> bool:
        end = self._span.feed(self._coming)
        part = self._coming if end is None else self._coming[:end]
        self._coming = self._coming[len(part) :]
        read.pieces.append(CallPiece(self._num_calls, part))
        if end is not None:
            self._state = self._read_tail
        return end is not None

    def _read_tail(self, _: Read) -> bool:
        """The brace that closes the call's own object."""
        self._coming = self._coming[1:]
        self._end_call()
        return True

    def _begin_call(self, read: Read, name: str) -> None:
        self._space = ""
        read.pieces.append(CallPiece(self._num_calls, "", self._format.make_id(), name))

    def _end_call(self) -> None:
        self._kept, self._is_after_call = "", True
        self._num_calls += 1
        self._state = self._read_between


def _parse_call(text: str, names: Collection[str]) -> tuple[str, str] | None:
    """Name and arguments, where the text is a call to one of `names`."""
    try:
        call = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str) or call["name"] not in names:
        return None
    arguments = call.get("arguments", call.get("parameters"))
    return (call["name"], json.dumps(arguments, ensure_ascii=False)) if isinstance(arguments, dict) else None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
