"""What the OpenAPI documents tell of answers beside what FastAPI sees by itself: the errors, and streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from engine.api.reference import HEADERS, render

Responses = dict[int | str, dict[str, Any]]


class ErrorDetails(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """OpenAI's shape of an error."""

    error: ErrorDetails


def errors(descriptions: dict[int, str]) -> Responses:
    """Answers of that shape, by status."""
    return {status: {"model": ErrorAnswer, "description": text} for status, text in descriptions.items()}


# What each endpoint may answer.
ERRORS = errors(
    {
        400: "A field has a value that cannot be honoured; the answer names it.",
        401: "There is no key, or none in force.",
        403: "The key has not the scope.",
        408: "The body came too slowly.",
        413: "The body, the file or the prompt is larger than its bound.",
        500: "The server failed, or what it keeps cannot be read or written; its log has the reason.",
        503: "It cannot be done now.",
    }
)
UNKNOWN_MODEL = errors({404: "No model of that name is here."})
UNKNOWN = errors({404: "There is none, or it is not this key's."})
# What asks a model may answer besides.
GENERATION = UNKNOWN_MODEL | errors(
    {
        429: "A quota of the key is used up, or the queue is full; `Retry-After` says when to try again.",
        504: "It was not complete at its deadline.",
    }
)
EVENTS: Responses = {
    200: {
        "description": "Whole, or as server-sent events where `stream` is true.",
        "content": {"text/event-stream": {}},
    }
}


class DocumentedApi(FastAPI):
    """Without the answer that FastAPI tells of by itself for what a schema refuses: here that is 400. At `/docs` is a
    page of our own, as FastAPI's are written by scripts of other hosts."""

    def __init__(self, **options: Any) -> None:
        super().__init__(docs_url=None, redoc_url=None, **options)
        self.add_route("/docs", self._show, include_in_schema=False)

    def openapi(self) -> dict[str, Any]:
        """The document; made once."""
        if self.openapi_schema is None:
            document = super().openapi()
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            self.openapi_schema = document
        return self.openapi_schema

    async def _show(self, http: Request) -> Response:
        return HTMLResponse(render(self.openapi(), http.scope.get("root_path", "")), headers=HEADERS)
