from __future__ import annotations

import json

import pytest

from engine.errors import ConsoleError, ContextLengthError, InvalidRequestError, QueueFullError
from engine.remote.trouble import RemoteError, explain_status


def body(message: str, **fields: str) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@pytest.mark.parametrize(
    ("status", "content", "kind", "words"),
    [
        (400, body("temperature is 9", param="temperature"), InvalidRequestError, r"far refuses .* temperature is 9"),
        (400, body("too long", code="context_length_exceeded"), ContextLengthError, "too long"),
        (422, b'{"detail": "no field x"}', InvalidRequestError, "no field x"),
        (429, body("slow down"), QueueFullError, r"too many requests \(429\): slow down"),
        (401, body("wrong key"), RemoteError, "does not accept its key"),
        (404, body("no such model"), RemoteError, "no such model or route"),
        (500, b"<html>oh</html>", RemoteError, r"failed \(500\): <html>oh</html>"),
        (503, b"", RemoteError, "it gives no reason"),
        (502, b"[1]", RemoteError, r"failed \(502\): \[1\]"),
        (307, b'{"message": "moved"}', RemoteError, r"failed \(307\): moved"),
        (500, b'{"error": "boom."}', RemoteError, r"boom$"),
    ],
)
def test_each_status_is_the_error_that_it_means(
    status: int, content: bytes, kind: type[ConsoleError], words: str
) -> None:
    error = explain_status(status, content, "far", None)
    assert type(error) is kind
    with pytest.raises(kind, match=words):
        raise error


def test_the_field_that_is_wrong_keeps_its_name() -> None:
    error = explain_status(400, body("no", param="top_k"), "far", None)
    assert isinstance(error, InvalidRequestError)
    assert error.param == "top_k"


def test_a_key_that_is_repeated_is_hidden_and_a_long_text_cut() -> None:
    error = explain_status(401, body("the key sk-secret is wrong " + "x" * 5_000), "far", "sk-secret")
    assert "the key (hidden) is wrong" in str(error)
    assert len(str(error)) < 700
