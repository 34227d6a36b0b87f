"""One request as it is kept, answered or refused: raw timings first, derived latencies from them.

Terms (the same on pages, in the API and in docs/architecture.md): queue = scheduled - received; prefill =
first token - scheduled; TTFT = first token - received; TPOT = (last token - first token) / (n - 1) for n > 1
output tokens; E2E = finished - received. A latency whose timings are missing is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How a request ended, as latency reports split it. A rejected one never started: it was refused, or waited for
    too long; its `finish_reason` is the code of the error that it got."""

    SUCCESSFUL = "successful"
    CANCELLED = "cancelled"
    ERRORED = "errored"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """What is kept of one request. `received_at_s` is seconds since the epoch; the other times are seconds
    after it, None where the request never got that far. `key_id` is the API key's, None where there was none."""

    request_id: str
    model: str
    source: str
    received_at_s: float
    scheduled_s: float | None
    first_token_s: float | None
    last_token_s: float | None
    finished_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str
    status: Status
    error: str | None = None
    key_id: str | None = None

    @property
    def queue_s(self) -> float | None:
        return self.scheduled_s

    @property
    def prefill_s(self) -> float | None:
        if self.first_token_s is None or self.scheduled_s is None:
            return None
        return self.first_token_s - self.scheduled_s

    @property
    def ttft_s(self) -> float | None:
        return self.first_token_s

    @property
    def tpot_s(self) -> float | None:
        if self.first_token_s is None or self.last_token_s is None or self.num_output_tokens < 2:
            return None
        return (self.last_token_s - self.first_token_s) / (self.num_output_tokens - 1)

    @property
    def decode_s(self) -> float | None:
        """From the first token to the last."""
        if self.first_token_s is None or self.last_token_s is None:
            return None
        return self.last_token_s - self.first_token_s

    @property
    def inference_s(self) -> float | None:
        """Prefill and decode together."""
        if self.scheduled_s is None or self.last_token_s is None:
            return None
        return self.last_token_s - self.scheduled_s

    @property
    def e2e_s(self) -> float:
        return self.finished_s
