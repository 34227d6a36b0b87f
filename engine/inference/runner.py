"""The step loop's body, and the only place that has forward passes run for requests.

One step: end what was cancelled or is late, admit, show the model an image that waits for that, run the pending tokens
of all running requests (forward.py), sample one token for each request whose tokens are all computed, deliver.
Requests join and leave between any two steps. Where the device computes by itself it is handed a step before the tokens
of the one before are known here (launched.py), so that it does not wait for their delivery; an answer that turns out to
have ended has then had one row too many, which nobody sees.

The interface is small so that the whole of it can be replaced: `submit`, `cancel`, `step`, `wait`, `refuse`,
`close`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import torch

from engine.clock import Clock
from engine.errors import InstanceNotReadyError, InvalidRequestError, QueueFullError
from engine.inference.choosing import Choice, choose
from engine.inference.forward import Part
from engine.inference.image_encoder import ImageEncoder
from engine.inference.launched import Launched
from engine.inference.parity import forward_of_requests
from engine.inference.prefixes import PrefixLimits, PrefixStore
from engine.inference.request import Finished, FinishReason, TokenInfo
from engine.inference.sequence import Sequence
from engine.inference.stats import RunnerStats, TokenRate
from engine.inference.text import token_text
from engine.inference.waiting import RequestQueue
from engine.latency.histogram import Histogram
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Chunk, Limits, admit, allow_queueing_s, plan_step

OnFinish = Callable[[Sequence, Finished], None]


class Runner:
    """Runs the requests of one model. `step`, `wait` and `close` belong to one thread at a time; the rest may be
    called from any.

    Attributes:
        token_gaps: where the seconds between two tokens of a request are counted, once somebody wants that.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        limits: Limits,
        clock: Clock,
        on_finish: OnFinish,
        prefix_limits: PrefixLimits | None = None,
    ) -> None:
        self.limits = limits
        self._loaded = loaded
        self._compute = forward_of_requests(loaded, limits)
        self._clock = clock
        self._on_finish = on_finish
        self._bell = threading.Condition()
        self._is_closed = False
        self._is_woken = False
        self._queue = RequestQueue(limits)
        self._running: dict[str, Sequence] = {}
        self._prefixes = PrefixStore(prefix_limits or PrefixLimits())
        self._rate = TokenRate()
        self._num_steps = 0
        self._launched: Launched | None = None
        self._num_held_up: Counter[str] = Counter()
        self._delivered_s = 0.0
        self._held_back: str | None = None
        self._encoder = ImageEncoder(loaded, clock, lambda sequence, why: self._end(sequence, FinishReason.ERROR, why))
        self._token_texts: dict[int, str] = {}  # of no more than the vocabulary
        self.token_gaps: Histogram | None = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a request.

        Raises:
            QueueFullError: as many requests, or tokens of prompts, wait already as may.
            InstanceNotReadyError: the runner is closed.
            InvalidRequestError: a request of the same id is here.
        """
        with self._bell:
            if self._is_closed:
                raise InstanceNotReadyError(f"{self._loaded.name} has stopped: wait until it is ready again")
            if self._find(sequence.request_id) is not None:
                raise InvalidRequestError(
                    f"request_id {sequence.request_id} is running already: give each request its own", "request_id"
                )
            self._refuse_if_full(sequence.num_prompt_tokens)
            self._queue.add(sequence, self._running.values())
            self._bell.notify_all()

    def check_room(self) -> None:
        """Refuse a request before any work on it is done, where not even the shortest one may wait.

        Raises:
            QueueFullError: see `submit`.
        """
        with self._bell:
            self._refuse_if_full(1)

    def _refuse_if_full(self, num_prompt_tokens: int) -> None:
        refusal = self._queue.judge(num_prompt_tokens, len(self._running), self._clock.monotonic())
        if refusal is not None:
            raise QueueFullError(
                f"the queue of {self._loaded.name} is full: {refusal.reason}; try again later or raise "
                f"{refusal.setting}",
                refusal.retry_after_s,
            )

    def cancel(self, request_id: str) -> bool:
        """Mark a request cancelled; it ends, and its cache is free, before the next forward pass. False when no
        such request is here."""
        with self._bell:
            found = self._find(request_id)
            if found is not None:
                found.is_cancelled = True
            return found is not None

    def _find(self, request_id: str) -> Sequence | None:
        return self._running.get(request_id) or self._queue.get(request_id)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a request arrives, `wake` is called, the runner closes, or the time is up."""
        with self._bell:
            self._bell.wait_for(lambda: len(self._queue) > 0 or self._is_closed or self._is_woken, timeout_s)
            self._is_woken = False

    def wake(self) -> None:
        """End `wait`, or the next one at once: there is other work for the thread that steps."""
        with self._bell:
            self._is_woken = True
            self._bell.notify_all()

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one step; False when there was nothing to run."""
        self._end_cancelled_and_late()
        self._admit()
        if not all(sequence.is_seen for sequence in self._running.values()):
            self.deliver()  # an image takes its time
        before, self._launched = self._launched, None
        if not self._running:
            return False
        self._encoder.step(self._running.values())
        with self._compute.stepping():
            self._run_and_deliver(before)
        self._num_steps += 1
        return True

    @torch.inference_mode()
    def deliver(self) -> None:
        """Wait for the step that is under way, if one is, and deliver its tokens: before other work for the device."""
        before, self._launched = self._launched, None
        if before is not None:
            self._deliver(before)

    def refuse(self) -> None:
        """Take no new requests and end `wait`, from any thread."""
        with self._bell:
            self._is_closed = True
            self._bell.notify_all()

    def close(self, error: str | None) -> None:
        """Refuse new requests and end those that are here: as errors with `error`, else as cancelled. Only once no
        thread steps any more."""
        self.refuse()
        self._launched = None
        reason = FinishReason.CANCELLED if error is None else FinishReason.ERROR
        for sequence in self.requests():
            self._end(sequence, reason, error)

    def stats(self) -> RunnerStats:
        """A reading of queue, batch and speed, from any thread."""
        now = self._clock.monotonic()
        with self._bell:
            running = list(self._running.values())
            num_waiting, num_waiting_tokens = len(self._queue), self._queue.num_tokens
            start_gap_s = self._queue.start_gap_s(now)
        return RunnerStats(
            num_running=len(running),
            num_waiting=num_waiting,
            max_running=self.limits.max_running,
            max_waiting=self.limits.max_waiting,
            cache_tokens_reserved=sum(sequence.reserved_tokens for sequence in running),
            cache_tokens_total=self.limits.cache_tokens,
            tokens_per_s=self._rate.per_second(now),
            num_steps=self._num_steps,
            num_output_tokens=self._rate.total,
            held_back=self._held_back,
            num_waiting_tokens=num_waiting_tokens,
            max_waiting_tokens=self.limits.max_waiting_tokens,
            start_gap_s=start_gap_s,
            prefixes=self._prefixes.stats(),
            passes=self._compute.name,
            num_held_up=dict(self._num_held_up),
        )

    @property
    def held_tokens(self) -> int:
        """Tokens of cache for which memory is taken while nothing runs."""
        return self._compute.held_tokens

    def requests(self) -> list[Sequence]:
        """The requests that are here now, for display."""
        with self._bell:
            return [*self._running.values(), *self._queue]

    def _end_cancelled_and_late(self) -> None:
        now = self._clock.monotonic()
        for sequence in self.requests():
            if sequence.is_cancelled:
                self._end(sequence, FinishReason.CANCELLED, sequence.stream.overrun)
            elif now >= sequence.deadline_s:
                allowed_s = sequence.deadline_s - sequence.timing.received_s
                self._end(sequence, FinishReason.DEADLINE, f"the request did not finish within {allowed_s:g} s")
            elif sequence.timing.scheduled_s is None:
                self._end_if_queued_too_long(sequence, now)

    def _end_if_queued_too_long(self, sequence: Sequence, now_s: float) -> None:
        allowed_s = allow_queueing_s(sequence.request.max_queue_s, self.limits)
        if allowed_s is None or now_s - sequence.timing.received_s < allowed_s:
            return
        with self._bell:
            retry_after_s = self._queue.estimate_wait_s(now_s)
        error = f"the request did not start within {allowed_s:g} s: send it again when {self._loaded.name} is less busy"
        self._end(sequence, FinishReason.QUEUE_TIMEOUT, error, retry_after_s)

    def _admit(self) -> None:
        now = self._clock.monotonic()
        with self._bell:
            running = list(self._running.values())
            # Where no place is free nobody starts, and whose turn it is need not be found out.
            is_full = len(running) >= self.limits.max_running
            waiting = self._queue if is_full else self._queue.take_turns(now, running)
            loads = [sequence.load() for sequence in running] if len(self._queue) else []
            decision = admit((sequence.load() for sequence in waiting), loads, self.limits)
            self._held_back = decision.held_back
            for request_id in decision.admitted:
                sequence = self._queue.start(request_id, now)
                sequence.start(now)
                self._running[request_id] = sequence
        for request_id in decision.admitted:
            sequence = self._running[request_id]
            if self._compute.runs_ahead and sequence.why_not_ahead is not None:
                self._num_held_up[sequence.why_not_ahead] += 1
            self._open_cache(sequence)
        reserved = sum(sequence.reserved_tokens for sequence in self._running.values())
        self._prefixes.make_room(self.limits.cache_tokens - max(reserved, self._compute.held_tokens))

    def _open_cache(self, sequence: Sequence) -> None:
        """Give a request that starts its cache, with what is kept of its prompt's beginning; or end it where the device
        has no room, which its limits did not foresee."""
        try:
            sequence.cache_for(self._compute, 1)
            self._prefixes.lend(sequence, self._compute)
        except torch.OutOfMemoryError:
            needed = f"{sequence.reserved_tokens:,} tokens of KV cache"
            why = f"the GPU has no room for the {needed} that this request may need: ask for fewer max_tokens, or lower"
            self._end(sequence, FinishReason.ERROR, f"{why} CONSOLE_KV_CACHE_GIB")

    def _run_and_deliver(self, before: Launched | None) -> None:
        """Run a step, and deliver what it or the one `before` it chose."""
        if before is not None and not self._can_follow(before):
            self._deliver(before)
            before = None
        ready = [sequence for sequence in self._running.values() if sequence.is_seen and not sequence.is_chosen_whole]
        chunks = plan_step([sequence.load() for sequence in ready], self.limits)
        launched = self._launch(chunks, before) if chunks else None
        if before is not None:
            self._deliver(before)
        if launched is not None and self._compute.runs_ahead:
            self._launched = launched
        elif launched is not None:
            self._deliver(launched)

    def _can_follow(self, before: Launched) -> bool:
        return before.can_be_followed and all(sequence.why_not_ahead is None for sequence in self._running.values())

    def _launch(self, chunks: tuple[Chunk, ...], before: Launched | None) -> Launched | None:
        """Have the chunks computed, and a token chosen for each request that is due one; None where there was no memory
        for it, and some was made."""
        began_s = self._clock.monotonic()
        try:
            complete, choice = self._compute_chunks(chunks, before)
        except torch.OutOfMemoryError:
            self._make_memory(chunks)
            return None
        for chunk in chunks:
            sequence = self._running[chunk.request_id]
            sequence.advance(sequence.num_computed + chunk.num_tokens)
            self._keep_prefix(sequence, chunk.num_tokens)
        for sequence in complete:
            sequence.num_chosen += 1
        return Launched(chunks, complete, choice, began_s, self._compute.mark())

    def _compute_chunks(self, chunks: tuple[Chunk, ...], before: Launched | None) -> tuple[list[Sequence], Choice]:
        parts = [self._part(chunk) for chunk in chunks]
        sequences = [self._running[chunk.request_id] for chunk in chunks]
        pairs = list(zip(sequences, parts, strict=True))
        unknown = [sequence for sequence, part in pairs if not part.is_known]
        chosen = before.tokens_of(unknown) if before is not None and unknown else None
        logits = self._compute.logits(parts, chosen)
        complete = [sequence for sequence, part in pairs if part.num_logits]
        return complete, choose(complete, logits, is_batched=self._compute.runs_ahead or logits.is_cuda)

    def _keep_prefix(self, sequence: Sequence, num_tokens: int) -> None:
        try:
            self._prefixes.keep(sequence, num_tokens, self._compute)
        except torch.OutOfMemoryError:
            self._prefixes.clear()

    def _part(self, chunk: Chunk) -> Part:
        sequence = self._running[chunk.request_id]
        past, stop = sequence.num_computed, sequence.num_computed + chunk.num_tokens
        cache = sequence.cache_for(self._compute, stop)
        return Part(cache, sequence.token_ids[past:stop], past, sequence.images, int(stop == sequence.num_tokens))

    def _make_memory(self, chunks: tuple[Chunk, ...]) -> None:
        """Let go of what is kept of prompts, or if that is nothing, of the request with most tokens in the step; of all
        in it where none can be gone on with."""
        if self._prefixes.clear() and self._compute.can_repeat:
            return
        largest = max(chunks, key=lambda chunk: chunk.num_tokens)
        remedy = "send it again when fewer run, or lower CONSOLE_CHUNK_TOKENS or CONSOLE_KV_CACHE_GIB"
        for chunk in (largest,) if self._compute.can_repeat else chunks:
            why = f"the GPU has no memory left for a step with {chunk.num_tokens:,} tokens of this request"
            self._end(self._running[chunk.request_id], FinishReason.ERROR, f"{why}: {remedy}")

    def _deliver(self, launched: Launched) -> None:
        launched.wait()
        found = launched.choice.read()
        now = self._clock.monotonic()
        self._prefixes.time(launched.chunks, now - max(launched.began_s, self._delivered_s))
        self._delivered_s = now
        for sequence, chosen in zip(launched.sequences, found, strict=True):
            sequence.num_chosen -= 1
            if self._running.get(sequence.request_id) is not sequence:
                continue  # it ended meanwhile
            if isinstance(chosen, str):
                self._end(sequence, FinishReason.ERROR, chosen)
                continue
            token = TokenInfo(
                chosen.token_id,
                self._token_text(chosen.token_id),
                chosen.logprob,
                tuple((token_id, self._token_text(token_id), value) for token_id, value in chosen.top),
            )
            now = self._clock.monotonic()
            self._rate.add(now)
            if self.token_gaps is not None and sequence.timing.last_token_s is not None:
                self.token_gaps.observe(now - sequence.timing.last_token_s)
            reason = sequence.append(token, now, is_end=chosen.token_id in self._loaded.end_ids)
            if reason is not None:
                self._end(sequence, reason)

    def _token_text(self, token_id: int) -> str:
        """Each is worked out once, which takes longer than all else that is done for a token."""
        text = self._token_texts.get(token_id)
        if text is None:
            text = self._token_texts[token_id] = token_text(self._loaded.tokenizer, token_id)
        return text

    def _end(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None, retry_after_s: float | None = None
    ) -> None:
        with self._bell:
            self._queue.remove(sequence)
            if self._running.pop(sequence.request_id, None) is not None:
                self._queue.settle(sequence, self._running.values())
        self._on_finish(sequence, sequence.finish(reason, self._clock.monotonic(), error, retry_after_s))
