"""Conversations for tests."""

from __future__ import annotations

import math

from engine.state.conversation import (
    Answer,
    Conversation,
    TokenLogprob,
    TurnKind,
    add_answer,
    add_turn,
    new_conversation,
)

FULL_ANSWER = Answer(
    text="Paris ☕",
    instance_id="smol",
    parameters={"temperature": 0.7, "stop": ["\n"], "logit_bias": {"5": -1.0}},
    seed=7,
    finish_reason="stop",
    num_prompt_tokens=12,
    num_output_tokens=2,
    queue_s=0.0015,
    ttft_s=0.25,
    tpot_s=0.0125,
    tokens_per_s=75.25,
    tokens=(
        TokenLogprob("Par", -0.1, (("Par", -0.1), ("Lon", -2.5))),
        TokenLogprob("is", 0.0, (("is", 0.0), ("x", -math.inf))),
    ),
)
FAILED_ANSWER = Answer("", "phone", error="the worker died\nand restarts")


def make_conversation(title: str = "Capital of France?", updated_at_s: float = 3.0) -> Conversation:
    """A chat turn that was regenerated and a comparison with one failed answer."""
    talk = new_conversation(now_s=1.0, system_prompt="Be brief.\nBe kind.")
    talk = add_turn(talk, title, (Answer("Lyon", "smol"),), now_s=2.0)
    talk = add_answer(talk, 0, FULL_ANSWER, now_s=2.5)
    return add_turn(
        talk, "And now?", (Answer("Yes.", "smol"), FAILED_ANSWER), now_s=updated_at_s, kind=TurnKind.COMPARE
    )
