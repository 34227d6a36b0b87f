"""A request while it runs: all of its state, and nobody else's."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import torch

from engine.inference.attention import CacheShape, SequenceCache
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished, FinishReason, Request, Timing, TokenInfo
from engine.inference.text import Detokenizer
from engine.scheduling.admission import Load

# Room for the first part of an answer, so that most never have to grow their cache.
_FIRST_ANSWER_TOKENS = 256


class Sequence:
    """Prompt, answer so far, cache, generator and timing of one request.

    Owned by the worker thread once submitted; `is_cancelled` is the one field others set.
    """

    def __init__(
        self,
        request: Request,
        prompt_ids: list[int],
        max_tokens: int,
        deadline_s: float,
        timing: Timing,
        detokenizer: Detokenizer,
    ) -> None:
        self.request = request
        self.max_tokens = max_tokens
        self.deadline_s = deadline_s
        self.timing = timing
        self.token_ids = list(prompt_ids)
        self.num_prompt_tokens = len(prompt_ids)
        self.num_computed = 0
        self.output_counts: Counter[int] = Counter()
        self.seed = (
            request.sampling.seed if request.sampling.seed is not None else random.SystemRandom().getrandbits(31)
        )
        self.is_cancelled = False
        self.stream = OutputStream(request.request_id, timing.received_at_s, self._cancel)
        self._generator = random.Random(self.seed)
        self._detokenizer = detokenizer
        self._cache: SequenceCache | None = None
        self._prompt_set: torch.Tensor | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def reserved_tokens(self) -> int:
        """What prompt and longest answer take together."""
        return self.num_prompt_tokens + self.max_tokens

    def load(self) -> Load:
        """This request as admission and step planning see it."""
        return Load(self.request_id, self.reserved_tokens, self.num_computed, len(self.token_ids))

    def _cancel(self) -> None:
        self.is_cancelled = True

    def start(self, now_s: float) -> None:
        """Mark the request scheduled."""
        self.timing = replace(self.timing, scheduled_s=now_s)

    def cache_for(self, shape: CacheShape, length: int) -> SequenceCache:
        """This request's cache with room for `length` tokens."""
        if self._cache is None:
            first = self.num_prompt_tokens + min(self.max_tokens, _FIRST_ANSWER_TOKENS)
            self._cache = SequenceCache(shape, first)
        self._cache.reserve(length, self.reserved_tokens)
        return self._cache

    def prompt_set(self, device: torch.device) -> torch.Tensor:
        """Distinct ids of the prompt; empty unless a repetition penalty needs them."""
        if self._prompt_set is None:
            ids = self.token_ids[: self.num_prompt_tokens] if self.request.sampling.repetition_penalty != 1.0 else []
            self._prompt_set = torch.tensor(sorted(set(ids)), dtype=torch.long, device=device)
        return self._prompt_set

    def uniform(self) -> float:
        """The next number of this request's own generator, in [0, 1)."""
        return self._generator.random()

    def append(self, token: TokenInfo, now_s: float, *, is_end: bool) -> FinishReason | None:
        """Take a sampled token, give its text to the reader, and say whether the answer is complete."""
        first = self.timing.first_token_s if self.timing.first_token_s is not None else now_s
        self.timing = replace(self.timing, first_token_s=first, last_token_s=now_s)
        self.token_ids.append(token.token_id)
        self.output_counts[token.token_id] += 1
        text = "" if is_end else self._detokenizer.feed(token.token_id)
        self.stream.put(Delta(text, (token,)))
        if is_end or self._detokenizer.is_stopped:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_output_tokens >= self.max_tokens else None

    def finish(self, reason: FinishReason, now_s: float, error: str | None = None) -> Finished:
        """End the stream and drop the cache."""
        self._cache = None
        self.timing = replace(self.timing, finished_s=now_s)
        rest = self._detokenizer.flush()
        if rest:
            self.stream.put(Delta(rest))
        event = Finished(
            self.request_id,
            reason,
            self.num_prompt_tokens,
            self.num_output_tokens,
            self.seed,
            self.timing,
            error,
        )
        self.stream.put(event)
        return event
