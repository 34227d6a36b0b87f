"""The controls of one lane of the playground: which instance answers, and how it chooses its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from engine import SamplingParams
from engine.errors import InvalidRequestError

_TOP_LOGPROBS = 5


@dataclass(frozen=True)
class Lane:
    """One answerer: an instance and its parameters. `error` says why the parameters cannot be used."""

    model: str
    sampling: SamplingParams
    error: str | None = None


def choose_lane(key: str, models: Sequence[str], seed: int | None, *, with_seed: bool) -> Lane:
    """Draw one lane's controls; every value survives a change of page.

    Args:
        key: keeps the lanes of a comparison apart.
        seed: the seed to use where the lane has no field of its own (`with_seed` false).
    """
    picker, panel = st.columns([3, 2], vertical_alignment="bottom")
    model = picker.selectbox(
        "Model",
        models,
        key=f"{key}.model" if models else f"{key}.no_model",
        persist_state="session",
        label_visibility="collapsed",
        placeholder="No model is ready",
        disabled=not models,
    )
    with panel.popover("Parameters", icon=":material/tune:", width="stretch"):
        return _choose_parameters(key, model or "", seed, with_seed=with_seed)


def _choose_parameters(key: str, model: str, seed: int | None, *, with_seed: bool) -> Lane:
    temperature = _slider(key, "Temperature", 0.0, 2.0, 0.7, "0 always takes the most likely token.")
    top_p = _slider(key, "Top-p", 0.01, 1.0, 1.0, "Keep the smallest set of tokens with this much probability.")
    left, right = st.columns(2)
    with left:
        top_k = _integer(key, "Top-k", 0, 0, "Keep this many tokens; 0 keeps all.")
        max_tokens = _integer(key, "Max tokens", 1, 512, "The longest answer.")
    with right:
        min_p = _number(key, "Min-p", 0.0, 1.0, 0.0, "Drop tokens below this share of the likeliest one's probability.")
        own_seed = _integer(key, "Seed", 0, None, "Empty draws one; each answer shows its seed.") if with_seed else seed
    with st.expander("Penalties, stops, bias"):
        rest = _choose_rest(key)
    is_recorded = st.toggle(
        "Token probabilities", True, key=f"{key}.logprobs", persist_state="session", help="Kept with each answer."
    )
    try:
        sampling = SamplingParams(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k or 0,
            min_p=min_p,
            repetition_penalty=rest.repetition,
            presence_penalty=rest.presence,
            frequency_penalty=rest.frequency,
            logit_bias=parse_bias(rest.bias),
            seed=own_seed,
            stop=tuple(rest.stop),
            max_tokens=max_tokens,
            top_logprobs=_TOP_LOGPROBS if is_recorded else None,
        )
        sampling.check()
    except InvalidRequestError as error:
        st.error(str(error))
        return Lane(model, SamplingParams(), str(error))
    return Lane(model, sampling)


@dataclass(frozen=True)
class _Rest:
    repetition: float
    presence: float
    frequency: float
    stop: list[str]
    bias: str


def _choose_rest(key: str) -> _Rest:
    return _Rest(
        repetition=_number(key, "Repetition penalty", 0.1, 10.0, 1.0, "Above 1 discourages what was already said."),
        presence=_number(key, "Presence penalty", -2.0, 2.0, 0.0, "Once for each token already in the answer."),
        frequency=_number(key, "Frequency penalty", -2.0, 2.0, 0.0, "For each time a token is in the answer."),
        stop=st.multiselect(
            "Stop strings",
            [],
            key=f"{key}.stop",
            accept_new_options=True,
            persist_state="session",
            placeholder="Type one and press Enter",
            help="The answer ends before the first of them.",
        ),
        bias=st.text_input(
            "Logit bias",
            key=f"{key}.bias",
            persist_state="session",
            placeholder="token id: bias, e.g. 504: -100, 30: 5",
            help="Added to the logits of these tokens, -100 to 100.",
        ),
    )


def parse_bias(text: str) -> dict[int, float]:
    """`"504: -100, 30: 5"` as a table.

    Raises:
        InvalidRequestError: a part is not `token id: bias`.
    """
    bias: dict[int, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        token_id, _, value = part.partition(":")
        try:
            bias[int(token_id)] = float(value)
        except ValueError as error:
            raise InvalidRequestError(
                f"logit bias {part!r} is not of the form `token id: bias`, for example 504: -100", "logit_bias"
            ) from error
    return bias


def _slider(key: str, label: str, low: float, high: float, value: float, hint: str) -> float:
    return st.slider(label, low, high, value, 0.01, key=f"{key}.{label}", persist_state="session", help=hint)


def _number(key: str, label: str, low: float, high: float, value: float, hint: str) -> float:
    return st.number_input(label, low, high, value, 0.05, key=f"{key}.{label}", persist_state="session", help=hint)


def _integer(key: str, label: str, low: int, value: int | None, hint: str) -> int | None:
    return st.number_input(
        label, low, None, value, 1, key=f"{key}.{label}", persist_state="session", help=hint, format="%d"
    )
