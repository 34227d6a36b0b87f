"""Sampling and contents as the fields of OpenAI's API: what a request elsewhere sends, and code to copy shows."""

from __future__ import annotations

from typing import Any

from engine.inference.images import Content, Detail
from engine.inference.request import SamplingParams

_DEFAULTS = SamplingParams()
# Beyond OpenAI's own fields, as vLLM, SGLang and this console have them.
EXTENSIONS = ("top_k", "min_p", "repetition_penalty")
_FIELDS = (
    "temperature",
    "top_p",
    *EXTENSIONS,
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "max_tokens",
)


def sampling_fields(sampling: SamplingParams) -> dict[str, Any]:
    """What is not at its default. Log-probabilities are not among it: endpoints ask for them differently."""
    fields = {name: getattr(sampling, name) for name in _FIELDS if getattr(sampling, name) != getattr(_DEFAULTS, name)}
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        fields["logit_bias"] = {str(token_id): bias for token_id, bias in sampling.logit_bias.items()}
    return fields


def content_field(content: Content) -> str | list[dict[str, Any]]:
    """A message's content: plain text, or texts and pictures as parts."""
    if isinstance(content, str):
        return content
    return [
        {"type": "text", "text": part} if isinstance(part, str) else image_field(part.data_url(), part.detail)
        for part in content
    ]


def image_field(url: str, detail: Detail | None = None) -> dict[str, Any]:
    """A picture as a part of a content."""
    return {"type": "image_url", "image_url": {"url": url} if detail is None else {"url": url, "detail": detail}}


def chat_logprob_fields(sampling: SamplingParams) -> dict[str, Any]:
    """How chat completions are asked for log-probabilities; nothing where none are wanted."""
    return {} if sampling.top_logprobs is None else {"logprobs": True, "top_logprobs": sampling.top_logprobs}
