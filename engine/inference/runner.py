"""The step loop's body, and the only place that runs forward passes.

One step: end what was cancelled or is late, admit, pack the pending tokens of all running requests into one
forward pass, sample one token for each request whose tokens are all computed, deliver. Requests join and leave
between any two steps.

The interface is small so that the whole of it can be replaced: `submit`, `cancel`, `step`, `wait`, `refuse`,
`close`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import torch

from engine.clock import Clock
from engine.errors import InstanceNotReadyError, InvalidRequestError, QueueFullError
from engine.inference import attention
from engine.inference.request import Finished, FinishReason, TokenInfo
from engine.inference.sampling import sample
from engine.inference.sequence import Sequence
from engine.inference.stats import RunnerStats, TokenRate
from engine.models.loader import LoadedModel
from engine.scheduling.admission import Chunk, Limits, admit, plan_step

OnFinish = Callable[[Sequence, Finished], None]


class Runner:
    """Runs the requests of one model. `step`, `wait` and `close` belong to one thread at a time; the rest may be
    called from any."""

    def __init__(self, loaded: LoadedModel, limits: Limits, clock: Clock, on_finish: OnFinish) -> None:
        loaded.model.set_attn_implementation(attention.NAME)
        self.limits = limits
        self._loaded = loaded
        self._clock = clock
        self._on_finish = on_finish
        self._bell = threading.Condition()
        self._arrivals: deque[Sequence] = deque()
        self._is_closed = False
        self._waiting: deque[Sequence] = deque()
        self._running: dict[str, Sequence] = {}
        self._rate = TokenRate()
        self._num_steps = 0
        self._held_back: str | None = None

    def submit(self, sequence: Sequence) -> None:
        """Queue a request.

        Raises:
            QueueFullError: as many wait already as may.
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
            room = self.limits.max_waiting + max(0, self.limits.max_running - len(self._running))
            num_queued = len(self._arrivals) + len(self._waiting)
            if num_queued >= room:
                raise QueueFullError(
                    f"{num_queued} requests are waiting for {self._loaded.name}, at most "
                    f"{self.limits.max_waiting} may: try again later or raise CONSOLE_MAX_WAITING"
                )
            self._arrivals.append(sequence)
            self._bell.notify_all()

    def cancel(self, request_id: str) -> bool:
        """Mark a request cancelled; it ends, and its cache is free, before the next forward pass. False when no
        such request is here."""
        with self._bell:
            found = self._find(request_id)
            if found is not None:
                found.is_cancelled = True
            return found is not None

    def _find(self, request_id: str) -> Sequence | None:
        running = self._running.get(request_id)
        queued = (item for item in (*self._arrivals, *self._waiting) if item.request_id == request_id)
        return running if running is not None else next(queued, None)

    def wait(self, timeout_s: float) -> None:
        """Sleep until a request arrives, the runner closes, or the time is up."""
        with self._bell:
            self._bell.wait_for(lambda: bool(self._arrivals) or self._is_closed, timeout_s)

    @torch.inference_mode()
    def step(self) -> bool:
        """Do one step; False when there was nothing to run."""
        self._take_arrivals()
        self._end_cancelled_and_late()
        self._admit()
        if not self._running:
            return False
        chunks = plan_step([sequence.load() for sequence in self._running.values()], self.limits)
        complete, logits = self._forward(chunks)
        self._choose_tokens(complete, logits)
        self._num_steps += 1
        return True

    def refuse(self) -> None:
        """Take no new requests and end `wait`, from any thread."""
        with self._bell:
            self._is_closed = True
            self._bell.notify_all()

    def close(self, error: str | None) -> None:
        """Refuse new requests and end those that are here: as errors with `error`, else as cancelled. Only once no
        thread steps any more."""
        self.refuse()
        self._take_arrivals()
        reason = FinishReason.CANCELLED if error is None else FinishReason.ERROR
        for sequence in [*self._waiting, *self._running.values()]:
            self._end(sequence, reason, error)

    def stats(self) -> RunnerStats:
        """A reading of queue, batch and speed, from any thread."""
        with self._bell:
            running = list(self._running.values())
            num_waiting = len(self._arrivals) + len(self._waiting)
        return RunnerStats(
            num_running=len(running),
            num_waiting=num_waiting,
            max_running=self.limits.max_running,
            max_waiting=self.limits.max_waiting,
            cache_tokens_reserved=sum(sequence.reserved_tokens for sequence in running),
            cache_tokens_total=self.limits.cache_tokens,
            tokens_per_s=self._rate.per_second(self._clock.monotonic()),
            num_steps=self._num_steps,
            num_output_tokens=self._rate.total,
            held_back=self._held_back,
        )

    def requests(self) -> list[Sequence]:
        """The requests that are here now, for display."""
        with self._bell:
            return [*self._running.values(), *self._waiting, *self._arrivals]

    def _take_arrivals(self) -> None:
        with self._bell:
            self._waiting.extend(self._arrivals)
            self._arrivals.clear()

    def _end_cancelled_and_late(self) -> None:
        now = self._clock.monotonic()
        for sequence in [*self._running.values(), *self._waiting]:
            if sequence.is_cancelled:
                self._end(sequence, FinishReason.CANCELLED)
            elif now >= sequence.deadline_s:
                allowed = sequence.deadline_s - sequence.timing.received_s
                self._end(sequence, FinishReason.DEADLINE, f"the request did not finish within {allowed:g} s")

    def _admit(self) -> None:
        running = [sequence.load() for sequence in self._running.values()]
        decision = admit([sequence.load() for sequence in self._waiting], running, self.limits)
        self._held_back = decision.held_back
        now = self._clock.monotonic()
        with self._bell:
            for _ in decision.admitted:
                sequence = self._waiting.popleft()
                sequence.start(now)
                self._running[sequence.request_id] = sequence

    def _forward(self, chunks: tuple[Chunk, ...]) -> tuple[list[Sequence], torch.Tensor]:
        """Run the chunks; the sequences that now await a token, and their logits (number of them, vocab)."""
        ids: list[int] = []
        positions: list[int] = []
        spans: list[attention.Span] = []
        complete: list[Sequence] = []
        last_rows: list[int] = []
        for chunk in chunks:
            sequence = self._running[chunk.request_id]
            past, stop = sequence.num_computed, sequence.num_computed + chunk.num_tokens
            cache = sequence.cache_for(self._loaded.cache_shape, stop)
            spans.append(attention.Span(cache, len(ids), len(ids) + chunk.num_tokens, past))
            ids.extend(sequence.token_ids[past:stop])
            positions.extend(range(past, stop))
            cache.length = sequence.num_computed = stop
            if stop == len(sequence.token_ids):
                complete.append(sequence)
                last_rows.append(len(ids) - 1)
        device = self._loaded.cache_shape.device
        output = self._loaded.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([positions], device=device),
            use_cache=False,
            logits_to_keep=torch.tensor(last_rows, dtype=torch.long, device=device),
            packed_batch=attention.PackedBatch(spans),
        )
        return complete, output.logits[0]

    def _choose_tokens(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        device = logits.device
        for sequence, row in zip(sequences, logits, strict=True):
            params = sequence.request.sampling
            uniform = sequence.uniform() if params.temperature > 0 else 0.0
            try:
                chosen = sample(row, params, sequence.prompt_set(device), sequence.output_counts, uniform)
            except FloatingPointError as error:
                self._end(sequence, FinishReason.ERROR, f"{error}: try float32, or load the model again")
                continue
            token = TokenInfo(
                chosen.token_id,
                self._token_text(chosen.token_id),
                chosen.logprob,
                tuple((token_id, self._token_text(token_id), value) for token_id, value in chosen.top),
            )
            now = self._clock.monotonic()
            self._rate.add(now)
            reason = sequence.append(token, now, is_end=chosen.token_id in self._loaded.end_ids)
            if reason is not None:
                self._end(sequence, reason)

    def _token_text(self, token_id: int) -> str:
        text: str = self._loaded.tokenizer.decode([token_id])
        return text

    def _end(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> None:
        with self._bell:
            self._running.pop(sequence.request_id, None)
            if sequence in self._waiting:
                self._waiting.remove(sequence)
        self._on_finish(sequence, sequence.finish(reason, self._clock.monotonic(), error))
