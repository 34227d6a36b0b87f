"""Answers and their speed, through the engine's own step loop: requests are batched as an instance batches them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from engine.clock import Clock
from engine.errors import WorkerDiedError
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.instance import Backend
from engine.lab.experiment import Answer, Speed
from engine.lab.statistics import estimate, median

if TYPE_CHECKING:
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence as Running
    from engine.models.loader import LoadedModel

NUM_STREAMS = 8

_SOURCE = "lab"
_TIMEOUT_S = 3_600.0
_NEVER = -100.0

OnFraction = Callable[[float], None]


class Stage:
    """A loaded model with a runner over it, stepped by whoever asks it something. `on_step` is called before every
    step, and may raise to end it."""

    def __init__(
        self, backend: Backend, loaded: LoadedModel, runner: Runner, clock: Clock, on_step: Callable[[], None]
    ) -> None:
        self._backend, self._loaded, self._runner = backend, loaded, runner
        self._clock, self._on_step = clock, on_step

    def answer(self, prompts: Sequence[str], num_tokens: int) -> tuple[Answer, ...]:
        """Greedy answers to all prompts, asked at once.

        Raises:
            InvalidRequestError, ContextLengthError: the model cannot take one of them.
        """
        return tuple(
            _to_answer(running) for running in self._run([self._request(prompt, num_tokens) for prompt in prompts])
        )

    def measure(self, prompts: Sequence[str], num_tokens: int, repeats: int, on_fraction: OnFraction) -> Speed:
        """Each figure `repeats` times: the median with its interval. The first prompt is the single stream's; eight
        streams take them all in turn. Answers do not end early. Raises as `answer` does."""
        single: list[Finished] = []
        rates: list[float] = []
        eight_rates: list[float] = []
        many = [prompts[index % len(prompts)] for index in range(NUM_STREAMS)]
        for index in range(repeats):
            on_fraction(index / repeats)
            (alone,) = self._time(prompts[:1], num_tokens)
            single.append(alone)
            rates.append(tokens_per_s([alone]))
            eight_rates.append(tokens_per_s(self._time(many, num_tokens)))
        ttft_s = [_since_received(finished.timing, finished.timing.first_token_s) for finished in single]
        return Speed(estimate(ttft_s, median), estimate(rates, median), estimate(eight_rates, median))

    def _time(self, prompts: Sequence[str], num_tokens: int) -> list[Finished]:
        endless = dict.fromkeys(self._loaded.end_ids, _NEVER)
        requests = [self._request(prompt, num_tokens, endless) for prompt in prompts]
        return [_finished(running) for running in self._run(requests)]

    def _request(self, prompt: str, num_tokens: int, logit_bias: dict[int, float] | None = None) -> Request:
        sampling = SamplingParams(temperature=0.0, max_tokens=num_tokens, logit_bias=logit_bias or {})
        return Request(self._loaded.name, (Message("user", prompt),), sampling, _TIMEOUT_S, _SOURCE)

    def _run(self, requests: Sequence[Request]) -> list[Running]:
        """Submit all, and step until all have ended."""
        timing = Timing(self._clock.wall(), self._clock.monotonic())
        all_running = [self._backend.prepare(self._loaded, self._runner, request, timing) for request in requests]
        for running in all_running:
            self._runner.submit(running)
        while any(running.stream.finished is None for running in all_running):
            self._on_step()
            self._runner.step()
        return all_running


def tokens_per_s(streams: Sequence[Finished]) -> float:
    """Output tokens of all streams over the time from the first one's receipt to the last token of all."""
    began_s = min(finished.timing.received_s for finished in streams)
    ended_s = max(finished.timing.last_token_s or finished.timing.received_s for finished in streams)
    return sum(finished.num_output_tokens for finished in streams) / max(ended_s - began_s, 1e-9)


def _since_received(timing: Timing, moment_s: float | None) -> float:
    return (moment_s if moment_s is not None else timing.received_s) - timing.received_s


def _finished(running: Running) -> Finished:
    finished = running.stream.finished
    if finished is None or finished.reason not in (FinishReason.STOP, FinishReason.LENGTH):
        why = "it did not end" if finished is None else finished.error or finished.reason
        raise WorkerDiedError(f"an answer was not completed: {why}")
    return finished


def _to_answer(running: Running) -> Answer:
    finished = _finished(running)
    text = "".join(event.text for event in running.stream.poll() if isinstance(event, Delta))
    return Answer(text, finished.num_output_tokens, finished.reason is FinishReason.LENGTH)
