"""The OpenAPI documents of the API as a machine that makes requests of them is to read them.

A value that no random text ever is (the model that is loaded, the id of a file that is there) stands in the document
as it is; and where nearly all that a schema allows is refused for another reason, `answerable` asks for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any, NamedTuple

from tests.engine.api.servers import build_app, call

MODEL = "tiny"
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

# What is not asked at random, and why.
LEFT_OUT = {
    "POST /admin/quantize": "it writes a model into whatever folder is named",
    "POST /admin/sign": "it reads every byte of whatever folder is named, and writes into it",
}
# Paths that end what the others need get no known name.
_ENDING = ("/unload", "/drain", "/swap", "/cancel-swap")

_TEXT = {"type": "string", "minLength": 1}
_TOKENS = {"type": "integer", "minimum": 1, "maximum": 6}


class Operation(NamedTuple):
    """A method of a path, both as the document of `mount` has them."""

    mount: str
    path: str
    method: str

    @property
    def label(self) -> str:
        return f"{self.method.upper()} {self.mount}{self.path}"


@cache
def document_of(mount: str) -> dict[str, Any]:
    """As it is served; that of the routes at the root, which serve none, in the same form. Not to be changed."""
    if mount:
        found: dict[str, Any] = call(build_app(None), "GET", f"{mount}/openapi.json").json()
        return found
    v1 = document_of("/v1")
    paths = {path: v1["paths"][path] for path in ("/tokenize", "/detokenize")}
    return {**v1, "paths": {**paths, "/healthz": _page(200), "/readyz": _page(200, 503), "/metrics": _page(200)}}


def _page(*statuses: int) -> dict[str, Any]:
    answers = {"responses": {str(status): {"description": "a page"} for status in statuses}}
    return {"get": answers, "head": answers}


def operations() -> list[Operation]:
    """All that are asked; what removes something comes last."""
    found = [
        Operation(mount, path, method)
        for mount in ("/v1", "/admin", "")
        for path, methods in document_of(mount)["paths"].items()
        for method in methods
    ]
    asked = [operation for operation in found if operation.label not in LEFT_OUT]
    return sorted(asked, key=lambda operation: operation.method == "delete")


def paths() -> list[tuple[str, frozenset[str]]]:
    """Each path with its mount, and its methods."""
    return [
        (mount + path, frozenset(methods))
        for mount in ("/v1", "/admin", "")
        for path, methods in document_of(mount)["paths"].items()
    ]


def document_for(asked: Operation, known: Mapping[str, str]) -> dict[str, Any]:
    """A document of this operation alone, without keys, which are sent with every request; in its path the `known`
    names and ids occur."""
    document = deepcopy(document_of(asked.mount))
    operation = document["paths"][asked.path][asked.method]
    document["paths"] = {asked.path: {asked.method: operation}}
    operation.pop("security", None)
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "path" and not asked.path.endswith(_ENDING):
            parameter["schema"] = {"anyOf": [{"enum": [known.get(parameter["name"], "x")]}, _TEXT]}
    return document


def answerable(document: dict[str, Any]) -> dict[str, Any]:
    """A copy whose requests are mostly answered, and soon."""
    return {**document, "components": {"schemas": {**document["components"]["schemas"], **_answerable_bodies()}}}


def _answerable_bodies() -> dict[str, Any]:
    message = _object({"role": {"enum": ["user", "system", "developer"]}, "content": _TEXT}, "role", "content")
    messages = {"type": "array", "minItems": 1, "maxItems": 3, "items": message}
    several = {"type": "array", "minItems": 1, "maxItems": 2, "items": _TEXT}
    ids = {"type": "array", "minItems": 1, "maxItems": 9, "items": {"type": "integer", "minimum": 0, "maximum": 255}}
    options = {
        "model": {"const": MODEL},
        "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
        "seed": {"type": ["integer", "null"], "minimum": 0, "maximum": 9},
        "user": {"type": ["string", "null"]},
        "stream": {"type": "boolean"},
    }
    choices = {**options, "n": {"type": "integer", "minimum": 1, "maximum": 2}, "max_tokens": _TOKENS}
    metadata = {"type": "object", "maxProperties": 2, "additionalProperties": {"type": "string"}}
    chat = {**choices, "messages": messages, "logprobs": {"type": "boolean"}, "metadata": metadata}
    completion = {**choices, "prompt": {"anyOf": [_TEXT, several, ids]}, "echo": {"type": "boolean"}}
    response = {
        **options,
        "input": {"anyOf": [_TEXT, messages]},
        "max_output_tokens": _TOKENS,
        "instructions": {"type": ["string", "null"]},
        "background": {"type": "boolean"},
    }
    embedding = {"model": {"const": MODEL}, "input": {"anyOf": [_TEXT, several, ids]}}
    embedding["encoding_format"] = {"enum": ["float", "base64"]}
    tokenize = {"prompt": _TEXT, "return_token_strs": {"type": "boolean"}}
    return {
        "ChatCompletionRequest": _object(chat, "model", "messages", "max_tokens"),
        "CompletionRequest": _object(completion, "model", "prompt", "max_tokens"),
        "ResponseRequest": _object(response, "model", "input", "max_output_tokens"),
        "EmbeddingBody": _object(embedding, "model", "input"),
        "TokenizeBody": _object(tokenize, "prompt"),
        "DetokenizeBody": _object({"tokens": ids}, "tokens"),
    }


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
