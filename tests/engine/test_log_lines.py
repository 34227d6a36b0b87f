from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from typing import Any

from engine.log_lines import JsonFormatter


def _format(message: str, **fields: Any) -> dict[str, Any]:
    record = logging.LogRecord("engine.x", logging.WARNING, __file__, 1, message, (), None)
    record.__dict__.update(fields)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return dict(json.loads(line))


def test_a_line_is_one_object() -> None:
    line = _format('two\nlines and a "quote"', fields={"request_id": "r"})
    assert line["message"] == 'two\nlines and a "quote"'
    assert (line["level"], line["logger"], line["request_id"]) == ("warning", "engine.x", "r")
    assert datetime.fromisoformat(line["time"]).tzinfo is not None


def test_half_characters_can_be_written() -> None:
    assert _format("\ud800")["message"] == "\ud800"


def test_an_exception_is_in_its_line() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        line = _format("it failed", exc_info=sys.exc_info())
    assert "ValueError: broken" in line["traceback"]
