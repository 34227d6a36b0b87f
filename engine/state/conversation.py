"""Conversations as values: what was asked, what was answered, and pure functions that give the next version.

A conversation is never changed in place. Times are seconds since the epoch and come from the caller.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from engine.errors import InvalidRequestError

TITLE_LENGTH = 60


class TurnKind(StrEnum):
    """Whether a turn's answers replace one another (regenerated) or stand side by side."""

    CHAT = "chat"
    COMPARE = "compare"


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One output token, its natural log probability, and the likeliest tokens at its place with theirs."""

    text: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """One instance's answer and what it took. A value that was not measured is None; `error` says why the
    text is missing or broken off."""

    text: str
    instance_id: str
    parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    finish_reason: str | None = None
    error: str | None = None
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    queue_s: float | None = None
    ttft_s: float | None = None
    tpot_s: float | None = None
    tokens_per_s: float | None = None
    tokens: tuple[TokenLogprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class KeptImage:
    """A picture of a prompt by its digest, under which `ImageStore` has its bytes, and the name of its file."""

    sha256: str
    media_type: str
    name: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt, with its pictures, and its answers; `selected` is the index of the answer that the conversation
    keeps to."""

    user_text: str
    answers: tuple[Answer, ...] = ()
    selected: int = 0
    kind: TurnKind = TurnKind.CHAT
    images: tuple[KeptImage, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.selected < max(len(self.answers), 1):
            raise ValueError(f"selected is {self.selected}, but there are {len(self.answers)} answers")

    @property
    def answer(self) -> Answer | None:
        """The selected answer; None while there is none."""
        return self.answers[self.selected] if self.answers else None


@dataclass(frozen=True, slots=True)
class Conversation:
    """A system prompt and turns, oldest first. The title is empty until the first prompt gives one."""

    id: str
    title: str
    system_prompt: str
    turns: tuple[Turn, ...]
    created_at_s: float
    updated_at_s: float


@dataclass(frozen=True, slots=True)
class Said:
    """One message of those that are sent to the model."""

    role: str
    text: str
    images: tuple[KeptImage, ...] = ()


def new_conversation(*, now_s: float, system_prompt: str = "") -> Conversation:
    """A conversation without turns, under a fresh random id."""
    return Conversation(uuid.uuid4().hex, "", system_prompt, (), now_s, now_s)


def title_from(prompt: str) -> str:
    """The prompt on one line of at most TITLE_LENGTH characters, cut at a word where one ends near."""
    line = " ".join("".join(char if char.isprintable() else " " for char in prompt).split())
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[: TITLE_LENGTH - 1]
    at_word = cut.rsplit(" ", 1)[0]
    return (at_word if len(at_word) > TITLE_LENGTH // 2 else cut) + "…"


def add_turn(
    conversation: Conversation,
    user_text: str,
    answers: tuple[Answer, ...] = (),
    *,
    now_s: float,
    kind: TurnKind = TurnKind.CHAT,
    images: tuple[KeptImage, ...] = (),
) -> Conversation:
    """The conversation with one more turn, its first answer selected."""
    turn = Turn(user_text, answers, 0, kind, images)
    title = conversation.title or title_from(user_text or ", ".join(image.name for image in images))
    return replace(conversation, title=title, turns=(*conversation.turns, turn), updated_at_s=now_s)


def add_answer(conversation: Conversation, turn: int, answer: Answer, *, now_s: float) -> Conversation:
    """The conversation with one more answer to the turn at index `turn`. In a chat the new answer is the
    selected one (it was asked for instead of the last); in a comparison the selection stays."""
    old = _turn_at(conversation, turn)
    selected = len(old.answers) if old.kind is TurnKind.CHAT else old.selected
    return _with_turn(conversation, turn, replace(old, answers=(*old.answers, answer), selected=selected), now_s=now_s)


def select_answer(conversation: Conversation, turn: int, answer: int, *, now_s: float) -> Conversation:
    """The conversation going on with another answer of the turn at index `turn`."""
    old = _turn_at(conversation, turn)
    if not 0 <= answer < len(old.answers):
        raise InvalidRequestError(
            f"answer {answer} does not exist; turn {turn} has {len(old.answers)}, counted from 0",
            param="answer",
        )
    return _with_turn(conversation, turn, replace(old, selected=answer), now_s=now_s)


def fork_at(conversation: Conversation, turn: int, user_text: str, *, now_s: float) -> Conversation:
    """A new conversation that has the turns before index `turn` and then asks `user_text`, unanswered.
    Editing a prompt this way keeps the original; its pictures are asked about again."""
    edited = _turn_at(conversation, turn)
    start = new_conversation(now_s=now_s, system_prompt=conversation.system_prompt)
    kept = replace(start, title=conversation.title if turn else "", turns=conversation.turns[:turn])
    return add_turn(kept, user_text, now_s=now_s, kind=edited.kind, images=edited.images)


def messages(conversation: Conversation, upto: int | None = None) -> list[Said]:
    """What to send to the model: system prompt, prompts and selected answers.

    With `upto` the messages that ask for an answer to the turn at that index: the turns before it in full,
    then its prompt alone. Without it every turn in full, so the last message is the last answer, or the last
    prompt when that is unanswered. Earlier turns whose selected answer has no text are left out, because chat
    templates want user and assistant to alternate.
    """
    asked = None if upto is None else _turn_at(conversation, upto)
    turns = conversation.turns[:upto]
    if asked is None and turns and not _has_text(turns[-1]):
        turns, asked = turns[:-1], turns[-1]
    result = [Said("system", conversation.system_prompt)] if conversation.system_prompt else []
    for turn in turns:
        if turn.answer is not None and turn.answer.text:
            result.append(Said("user", turn.user_text, turn.images))
            result.append(Said("assistant", turn.answer.text))
    if asked is not None:
        result.append(Said("user", asked.user_text, asked.images))
    return result


def _has_text(turn: Turn) -> bool:
    return turn.answer is not None and bool(turn.answer.text)


def _turn_at(conversation: Conversation, index: int) -> Turn:
    if not 0 <= index < len(conversation.turns):
        raise InvalidRequestError(
            f"turn {index} does not exist; the conversation has {len(conversation.turns)}, counted from 0",
            param="turn",
        )
    return conversation.turns[index]


def _with_turn(conversation: Conversation, index: int, turn: Turn, *, now_s: float) -> Conversation:
    turns = (*conversation.turns[:index], turn, *conversation.turns[index + 1 :])
    return replace(conversation, turns=turns, updated_at_s=now_s)
