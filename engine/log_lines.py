"""Log lines as JSON, and the one that each request leaves at its end. No prompt is in it unless that was asked for."""

from __future__ import annotations

import json
import logging
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from engine.inference.embedding import EmbeddingRequest
from engine.inference.request import Request
from engine.latency.record import RequestRecord

_requests = logging.getLogger("engine.requests")
_FIELDS = tuple(field.name for field in fields(RequestRecord))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, what `extra` names `fields`, and the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, separators=(",", ":"), default=str)


def log_request(record: RequestRecord, prompt: object = None) -> None:
    """The line of an ended or refused request: what its latency record has, and the prompt where one is given."""
    line = {name: getattr(record, name) for name in _FIELDS}
    if prompt is not None:
        line["prompt"] = prompt
    _requests.info("request %s", record.status.value, extra={"fields": line})


def prompt_of(request: Request | EmbeddingRequest) -> object:
    """What was asked, as JSON can hold it."""
    if isinstance(request, EmbeddingRequest):
        return request.inputs
    if request.prompt is not None:
        return request.prompt
    return [{"role": message.role, "content": message.shown()} for message in request.messages]
