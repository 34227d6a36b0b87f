"""Log-probabilities as OpenAI's chat completions and responses have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.inference.request import TokenInfo
from engine.inference.text import token_bytes


def token_logprobs(tokens: Iterable[TokenInfo]) -> list[dict[str, Any]]:
    """One entry a token: its text, its bytes, and the likeliest alternatives."""
    return [
        {
            **_entry(token.text, token.logprob),
            "top_logprobs": [_entry(text, value) for _, text, value in token.top],
        }
        for token in tokens
    ]


def _entry(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(token_bytes(text))}
