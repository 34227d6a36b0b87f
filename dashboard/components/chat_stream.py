"""Answers while they are being written: one column a lane, all lanes at once.

The script that draws is also the reader. Whatever ends it early (Stop, another click, a closed tab) ends the
requests too, and what was written by then is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import streamlit as st

from dashboard.components.formats import DASH
from dashboard.components.parameters import Lane
from dashboard.components.pictures import read_content
from engine import Console, Delta, Finished, FinishReason, Message, Request, SamplingParams
from engine.errors import ConsoleError
from engine.inference.outputs import OutputStream
from engine.inference.request import TokenInfo
from engine.recording import make_record
from engine.state import Answer, Conversation, TokenLogprob, messages

_REDRAW_S = 0.08
_CANCEL_WAIT_S = 5.0


class LiveAnswer:
    """One lane's request: its stream, what it has said so far, and where that is drawn."""

    def __init__(self, lane: Lane, asked: Sequence[Message], console: Console) -> None:
        self.lane = lane
        self.text = ""
        self.error: str | None = lane.error
        self.finished: Finished | None = None
        self._tokens: list[TokenInfo] = []
        self._began_s = self._first_s = time.perf_counter()
        self._request = Request(lane.model, tuple(asked), lane.sampling, source="playground")
        self._stream: OutputStream | None = None
        if self.error is None:
            try:
                self._stream = console.gateway.stream(self._request)
            except ConsoleError as error:
                self.error = str(error)

    @property
    def is_live(self) -> bool:
        """Whether more can come."""
        return self._stream is not None and self.finished is None

    def take(self) -> bool:
        """Read what has arrived; False when nothing had."""
        events = self._stream.poll() if self._stream is not None else []
        for event in events:
            if isinstance(event, Delta):
                if not self._tokens and event.tokens:
                    self._first_s = time.perf_counter()
                self.text += event.text
                self._tokens.extend(event.tokens)
            else:
                self.finished, self.error = event, event.error
        return bool(events)

    def close(self) -> None:
        """Cancel what is still running and wait, briefly, for its last event."""
        if self._stream is None:
            return
        self._stream.close()
        end = time.perf_counter() + _CANCEL_WAIT_S
        while self.finished is None and time.perf_counter() < end:
            self._stream.wait(0.1)
            self.take()

    def status(self) -> str:
        """The line under a live answer."""
        num_tokens = len(self._tokens)
        if not num_tokens:
            return f"waiting {time.perf_counter() - self._began_s:.1f} s"
        elapsed = time.perf_counter() - self._first_s
        rate = f"{(num_tokens - 1) / elapsed:.1f} tok/s" if num_tokens > 1 and elapsed > 0 else DASH
        return f"{num_tokens} tokens · {rate} · TTFT {(self._first_s - self._began_s) * 1000:.0f} ms"

    def answer(self) -> Answer:
        """What to keep."""
        finished = self.finished
        if finished is None:
            return Answer(self.text, self.lane.model, shown_parameters(self.lane.sampling), error=self.error)
        record = make_record(self._request, finished)
        return Answer(
            text=self.text,
            instance_id=self.lane.model,
            parameters=shown_parameters(self.lane.sampling),
            seed=finished.seed,
            finish_reason=finished.reason.value,
            error=self.error if finished.reason is not FinishReason.CANCELLED else None,
            num_prompt_tokens=finished.num_prompt_tokens,
            num_output_tokens=finished.num_output_tokens,
            queue_s=record.queue_s,
            ttft_s=record.ttft_s,
            tpot_s=record.tpot_s,
            tokens_per_s=1 / record.tpot_s if record.tpot_s else None,
            tokens=_kept_tokens(self._tokens),
        )


def messages_to(console: Console, conversation: Conversation, index: int) -> list[Message]:
    """What is sent to have turn `index` answered."""
    return [Message(said.role, read_content(console.images, said)) for said in messages(conversation, upto=index)]


def stream_answers(
    console: Console,
    lanes: Sequence[Lane],
    asked: Sequence[Message],
    keep: Callable[[tuple[Answer, ...]], None],
) -> None:
    """Draw all lanes until they end, then hand their answers to `keep`; also when the script is ended before that."""
    live = [LiveAnswer(lane, asked, console) for lane in lanes]
    try:
        _draw_until_done(live)
    finally:
        for answer in live:
            answer.close()
        keep(tuple(answer.answer() for answer in live))


def _draw_until_done(live: Sequence[LiveAnswer]) -> None:
    places = []
    for column, answer in zip(st.columns(len(live)), live, strict=True):
        with column, st.chat_message("assistant"):
            if len(live) > 1:
                st.caption(f"**{answer.lane.model}**")
            places.append((st.empty(), st.empty()))
    st.button("Stop", icon=":material/stop_circle:", key="playground.stop", shortcut="Escape")
    while any(answer.is_live for answer in live):
        for answer, (text, status) in zip(live, places, strict=True):
            if answer.take() or not answer.text:
                text.markdown(answer.text + " ▌" if answer.is_live else answer.text)
                status.caption(answer.status())
        time.sleep(_REDRAW_S)


def shown_parameters(sampling: SamplingParams) -> dict[str, Any]:
    """The parameters as JSON keeps them, without those at their defaults."""
    defaults = asdict(SamplingParams())
    kept = {name: value for name, value in asdict(sampling).items() if value != defaults[name]}
    if "logit_bias" in kept:
        kept["logit_bias"] = {str(token_id): bias for token_id, bias in kept["logit_bias"].items()}
    if "stop" in kept:
        kept["stop"] = list(kept["stop"])
    return kept


def restore_parameters(kept: dict[str, Any]) -> SamplingParams:
    """The inverse of `shown_parameters`."""
    values = dict(kept)
    if "logit_bias" in values:
        values["logit_bias"] = {int(token_id): bias for token_id, bias in values["logit_bias"].items()}
    if "stop" in values:
        values["stop"] = tuple(values["stop"])
    return SamplingParams(**values)


def _kept_tokens(tokens: Sequence[TokenInfo]) -> tuple[TokenLogprob, ...] | None:
    kept = tuple(
        TokenLogprob(token.text, token.logprob, tuple((text, value) for _, text, value in token.top))
        for token in tokens
        if token.logprob is not None
    )
    return kept or None
