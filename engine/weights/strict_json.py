"""JSON from files of others, read without the liberties that Python's reader takes."""

from __future__ import annotations

import json
from typing import Any


def parse_json(raw: bytes | str) -> Any:
    """The value that `raw` holds.

    Raises:
        ValueError: it is not JSON, not UTF-8, nested too deeply, gives a key twice, or has a number that JSON has not.
            The message says which, in words that fit after a colon.
    """
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        return json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise ValueError("it is not UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} at character {error.pos})") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"it gives the key {shorten(twice)!r} twice")
    return table


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"it holds {name}, which is no JSON number")


def shorten(text: str, num_characters: int = 80) -> str:
    """`text` for a message, cut where it is long: a damaged file may call a thing by a name of megabytes."""
    return text if len(text) <= num_characters else f"{text[:num_characters]}..."
