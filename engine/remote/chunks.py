"""The events of a streamed answer, from OpenAI's JSON to ours. Pure."""

from __future__ import annotations

import json
from typing import Any

from engine.inference.request import Delta, FinishReason, TokenInfo
from engine.inference.tools import CallPiece
from engine.remote.trouble import RemoteError, explain_event

DONE = "[DONE]"
# The id of a token that another server's vocabulary has, and does not tell.
UNKNOWN_TOKEN = -1
_REASONS = {"length": FinishReason.LENGTH}


class ChunkReader:
    """Reads one answer's events in order, and knows at the end how it ended.

    Attributes:
        reason: None until the server gave one.
        num_prompt_tokens: 0 until the server tells.
        num_output_tokens: counted by events until the server tells.
        is_done: the stream has come to its proper end.
    """

    def __init__(self, name: str, key: str | None = None) -> None:
        self.reason: FinishReason | None = None
        self.num_prompt_tokens = 0
        self.num_output_tokens = 0
        self.is_done = False
        self._name = name
        self._key = key

    def feed(self, data: str) -> Delta | None:
        """What an event adds to the answer; None where that is nothing.

        Raises:
            RemoteError: it is an error, or no event of a streamed answer.
        """
        if data == DONE:
            self.is_done = True
            return None
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise explain_event(chunk["error"], self._name, self._key)
            self._read_usage(chunk.get("usage"))
            return self._read_choice(chunk["choices"][0]) if chunk.get("choices") else None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise RemoteError(
                f"{self._name} sent an event that belongs to no answer ({data[:80]!r}): check its base URL and version"
            ) from error

    def _read_usage(self, usage: dict[str, Any] | None) -> None:
        if usage:
            self.num_prompt_tokens = int(usage.get("prompt_tokens") or 0)
            self.num_output_tokens = int(usage.get("completion_tokens") or 0)

    def _read_choice(self, choice: dict[str, Any]) -> Delta | None:
        reason = choice.get("finish_reason")
        if reason == "content_filter":
            raise RemoteError(f"{self._name} withheld the rest of the answer (content_filter)")
        if reason:
            self.reason = _REASONS.get(reason, FinishReason.STOP)
        delta = choice.get("delta") or {}
        text = delta.get("content") if "delta" in choice else choice.get("text")
        calls = tuple(_call(piece) for piece in delta.get("tool_calls") or ())
        tokens = _tokens(choice.get("logprobs")) or ((TokenInfo(UNKNOWN_TOKEN, text),) if text else ())
        self.num_output_tokens += len(tokens)
        return Delta(text or "", tokens, calls) if text or tokens or calls else None


def _call(piece: dict[str, Any]) -> CallPiece:
    function = piece.get("function") or {}
    name, call_id = function.get("name"), piece.get("id")
    return CallPiece(int(piece["index"]), function.get("arguments") or "", call_id or None, name or None)


def _tokens(logprobs: dict[str, Any] | None) -> tuple[TokenInfo, ...]:
    """Of a chat's chunk, where log-probabilities were asked for."""
    return tuple(
        TokenInfo(
            UNKNOWN_TOKEN,
            item["token"],
            item["logprob"],
            tuple((UNKNOWN_TOKEN, top["token"], top["logprob"]) for top in item.get("top_logprobs") or ()),
        )
        for item in (logprobs or {}).get("content") or ()
    )
