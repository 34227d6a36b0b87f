"""A request while it runs: all of its state, and nobody else's."""

from __future__ import annotations

import logging
import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from engine.inference.calls import CallReader
from engine.inference.image_prompt import ImagePrompt
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished, FinishReason, Request, Timing, TokenInfo
from engine.inference.structured import Matcher
from engine.inference.text import Detokenizer
from engine.scheduling.admission import Load

if TYPE_CHECKING:
    from engine.inference.forward import Forward

logger = logging.getLogger(__name__)

# Room for the first part of an answer, so that most never have to grow their cache.
_FIRST_ANSWER_TOKENS = 256


class Sequence:
    """Prompt, answer so far, cache, generator and timing of one request; with a `matcher` where the answer follows a
    grammar, a `reader` where it may hold tool calls, and `images` where the prompt has some.

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
        matcher: Matcher | None = None,
        reader: CallReader | None = None,
        images: ImagePrompt | None = None,
    ) -> None:
        self.request = request
        self.images = images
        self.max_tokens = max_tokens
        self.deadline_s = deadline_s
        self.timing = timing
        self.token_ids = list(prompt_ids)
        self.num_prompt_tokens = len(prompt_ids)
        self.num_computed = 0
        self.num_lent = 0  # of them, those that another request's prompt had computed
        self.num_chosen = 0  # tokens chosen on the device, whose ids are not known here yet
        self.prompt_blocks: tuple[bytes, ...] = ()
        self.output_counts: Counter[int] = Counter()
        self.seed = request.sampling.seed_or_drawn()
        self.is_cancelled = False
        self.stream = OutputStream(request.request_id, timing.received_at_s, self._cancel)
        self._generator = random.Random(self.seed)
        self._drawn = 0, 0.0  # for which token, and what
        self._detokenizer = detokenizer
        self._matcher = matcher
        self._reader = reader
        self._cache: Any = None
        # Why its next token cannot be chosen without knowing here what the one before it was; None where it can.
        self.why_not_ahead = self._find_why_not_ahead()
        self._prompt_set: torch.Tensor | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_tokens(self) -> int:
        """Of prompt and answer, those among them that only the device knows."""
        return len(self.token_ids) + self.num_chosen

    @property
    def is_chosen_whole(self) -> bool:
        """Whether the answer is as long as it may get once what was chosen is known."""
        return self.num_output_tokens + self.num_chosen >= self.max_tokens

    def _find_why_not_ahead(self) -> str | None:
        if self._matcher is not None:
            return "grammar"
        return "penalties" if self.request.sampling.has_penalties else None

    @property
    def reserved_tokens(self) -> int:
        """What prompt and longest answer take together."""
        return self.num_prompt_tokens + self.max_tokens

    def load(self) -> Load:
        """This request as admission and step planning see it."""
        wholes = () if self.images is None else self.images.wholes
        return Load(self.request_id, self.reserved_tokens, self.num_computed, self.num_tokens, wholes)

    @property
    def is_seen(self) -> bool:
        """Whether the model was shown all images of the prompt, so that its tokens can be run."""
        return self.images is None or self.images.next_pixels is None

    def _cancel(self) -> None:
        self.is_cancelled = True

    def advance(self, num_computed: int) -> None:
        """So many tokens are computed now. Images are let go once their prompt is computed."""
        self.num_computed = num_computed
        if self.images is not None and num_computed >= self.num_prompt_tokens:
            self.images.drop()

    def start(self, now_s: float) -> None:
        """Mark the request scheduled."""
        self.timing = replace(self.timing, scheduled_s=now_s)

    def cache_for(self, forward: Forward, length: int) -> Any:
        """This request's cache, as `forward` makes them, with room for `length` tokens."""
        if self._cache is None:
            first = self.num_prompt_tokens + min(self.max_tokens, _FIRST_ANSWER_TOKENS)
            self._cache = forward.new_cache(first, self.reserved_tokens)
        self._cache.reserve(length, self.reserved_tokens)
        return self._cache

    def prompt_set(self, device: torch.device) -> torch.Tensor:
        """Distinct ids of the prompt; empty unless a repetition penalty needs them."""
        if self._prompt_set is None:
            ids = self.token_ids[: self.num_prompt_tokens] if self.request.sampling.repetition_penalty != 1.0 else []
            self._prompt_set = torch.tensor(sorted(set(ids)), dtype=torch.long, device=device)
        return self._prompt_set

    def uniform(self) -> float:
        """The next number of this request's own generator, in [0, 1): one a token, also where a step is run again."""
        if self._drawn[0] != self.num_tokens:
            self._drawn = self.num_tokens, self._generator.random()
        return self._drawn[1]

    def allowed(self) -> torch.Tensor | None:
        """Which tokens may come next, shape (vocab,), bool, on the CPU; None for any.

        Raises:
            GrammarError: the answer cannot go on within its grammar.
        """
        return None if self._matcher is None else self._matcher.allowed()

    def append(self, token: TokenInfo, now_s: float, *, is_end: bool) -> FinishReason | None:
        """Take a sampled token, give its text to the reader, and say whether the answer is complete."""
        self.timing = self.timing.with_token(now_s)
        self.token_ids.append(token.token_id)
        self.output_counts[token.token_id] += 1
        if self._matcher is not None and not is_end:
            self._matcher.accept(token.token_id)
        self.stream.put(self._read("" if is_end else self._detokenizer.feed(token.token_id), (token,)))
        if is_end or self._is_complete():
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_output_tokens >= self.max_tokens else None

    def _read(self, text: str, tokens: tuple[TokenInfo, ...]) -> Delta:
        if self._reader is None:
            return Delta(text, tokens)
        read = self._reader.feed(text)
        return Delta(read.text, tokens, tuple(read.pieces))

    def _is_complete(self) -> bool:
        """Nothing may follow, though the model has not ended the answer."""
        return (
            self._detokenizer.is_stopped
            or (self._matcher is not None and self._matcher.is_complete)
            or (self._reader is not None and self._reader.is_full)
        )

    def _put_rest(self) -> None:
        """What detokenizer and reader held back."""
        rest = self._read(self._detokenizer.flush(), ())
        left = "" if self._reader is None else self._reader.flush()
        if rest.text or rest.calls or left:
            self.stream.put(Delta(rest.text + left, (), rest.calls))

    def finish(
        self, reason: FinishReason, now_s: float, error: str | None = None, retry_after_s: float | None = None
    ) -> Finished:
        """End the stream, and drop cache and images."""
        self._cache = None
        if self.images is not None:
            self.images.drop()
        self.timing = replace(self.timing, finished_s=now_s)
        try:
            self._put_rest()
        except Exception:  # the stream must end, above all where this is what its worker died of
            logger.exception("the rest of the answer to %s is lost", self.request_id)
        event = Finished(
            self.request_id,
            reason,
            self.num_prompt_tokens,
            self.num_output_tokens,
            self.seed,
            self.timing,
            error,
            retry_after_s,
            self.num_lent,
        )
        self.stream.put(event)
        return event
