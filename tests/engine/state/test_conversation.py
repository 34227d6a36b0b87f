from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidRequestError
from engine.state.conversation import (
    TITLE_LENGTH,
    Answer,
    Conversation,
    KeptImage,
    Said,
    Turn,
    TurnKind,
    add_answer,
    add_turn,
    fork_at,
    messages,
    new_conversation,
    select_answer,
    title_from,
)


def _answer(text: str) -> Answer:
    return Answer(text, "smol")


@pytest.fixture
def talk() -> Conversation:
    """Two turns, each answered once."""
    talk = new_conversation(now_s=1.0, system_prompt="Be brief.")
    talk = add_turn(talk, "Capital of France?", (_answer("Paris"),), now_s=2.0)
    return add_turn(talk, "Of Spain?", (_answer("Madrid"),), now_s=3.0)


def _contents(conversation: Conversation, upto: int | None = None) -> list[str]:
    return [message.text for message in messages(conversation, upto)]


def test_new_conversations_have_their_own_ids() -> None:
    first, second = new_conversation(now_s=1.0), new_conversation(now_s=1.0)
    assert first.id != second.id
    assert (first.title, first.turns, first.created_at_s, first.updated_at_s) == ("", (), 1.0, 1.0)


def test_first_prompt_gives_the_title(talk: Conversation) -> None:
    assert (talk.title, talk.created_at_s, talk.updated_at_s) == ("Capital of France?", 1.0, 3.0)


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("  two\n lines\t here ", "two lines here"),
        ("nul\x00 and bell\x07", "nul and bell"),
        ("word " * 30, ("word " * 11).strip() + "…"),
        ("x" * 100, "x" * (TITLE_LENGTH - 1) + "…"),
        ("", ""),
    ],
)
def test_title_is_one_short_line(prompt: str, title: str) -> None:
    assert title_from(prompt) == title


@given(st.text())
def test_title_of_any_prompt_fits(prompt: str) -> None:
    title = title_from(prompt)
    assert len(title) <= TITLE_LENGTH
    assert title.isprintable()


def test_nothing_changes_in_place(talk: Conversation) -> None:
    changed = add_answer(talk, 0, _answer("Paris!"), now_s=4.0)
    assert [len(turn.answers) for turn in talk.turns] == [1, 1]
    assert [len(turn.answers) for turn in changed.turns] == [2, 1]


def test_regenerated_answer_is_selected(talk: Conversation) -> None:
    talk = add_answer(talk, 1, _answer("Madrid, Spain"), now_s=4.0)
    assert talk.turns[1].answer == _answer("Madrid, Spain")
    assert talk.updated_at_s == 4.0


def test_comparison_keeps_its_selection(talk: Conversation) -> None:
    talk = add_turn(talk, "Of Italy?", (_answer("Rome"),), now_s=4.0, kind=TurnKind.COMPARE)
    talk = add_answer(talk, 2, _answer("Roma"), now_s=5.0)
    assert talk.turns[2].answer == _answer("Rome")
    assert select_answer(talk, 2, 1, now_s=6.0).turns[2].answer == _answer("Roma")


def test_fork_keeps_the_original(talk: Conversation) -> None:
    fork = fork_at(talk, 1, "Of Portugal?", now_s=9.0)
    assert fork.id != talk.id
    assert fork.turns == (talk.turns[0], Turn("Of Portugal?"))
    assert (fork.title, fork.system_prompt, fork.created_at_s) == (talk.title, "Be brief.", 9.0)
    assert talk.turns[1].user_text == "Of Spain?"


def test_fork_at_the_first_turn_gets_its_own_title(talk: Conversation) -> None:
    fork = fork_at(talk, 0, "Of Portugal?", now_s=9.0)
    assert (fork.title, fork.turns) == ("Of Portugal?", (Turn("Of Portugal?"),))


def test_fork_of_a_comparison_stays_one(talk: Conversation) -> None:
    talk = add_turn(talk, "Of Italy?", now_s=4.0, kind=TurnKind.COMPARE)
    assert fork_at(talk, 2, "Of Malta?", now_s=5.0).turns[2].kind is TurnKind.COMPARE


def test_messages_are_the_whole_talk(talk: Conversation) -> None:
    assert messages(talk) == [
        Said("system", "Be brief."),
        Said("user", "Capital of France?"),
        Said("assistant", "Paris"),
        Said("user", "Of Spain?"),
        Said("assistant", "Madrid"),
    ]


def test_messages_without_a_system_prompt() -> None:
    talk = add_turn(new_conversation(now_s=1.0), "Hi", now_s=2.0)
    assert messages(talk) == [Said("user", "Hi")]


def test_messages_end_with_an_unanswered_prompt(talk: Conversation) -> None:
    talk = add_turn(talk, "Of Italy?", now_s=4.0)
    assert _contents(talk)[-3:] == ["Of Spain?", "Madrid", "Of Italy?"]


def test_messages_up_to_a_turn_ask_for_its_answer(talk: Conversation) -> None:
    assert _contents(talk, 0) == ["Be brief.", "Capital of France?"]
    assert _contents(talk, 1) == ["Be brief.", "Capital of France?", "Paris", "Of Spain?"]


def test_messages_follow_the_selection(talk: Conversation) -> None:
    talk = add_answer(talk, 0, _answer("Lyon"), now_s=4.0)
    assert _contents(talk, 1)[2] == "Lyon"
    assert _contents(select_answer(talk, 0, 0, now_s=5.0), 1)[2] == "Paris"


def test_failed_turns_are_left_out_so_that_roles_alternate(talk: Conversation) -> None:
    failed = Answer("", "smol", error="the worker died")
    talk = add_turn(talk, "Of Italy?", (failed,), now_s=4.0)
    talk = add_turn(talk, "Of Malta?", now_s=5.0)
    assert _contents(talk)[-3:] == ["Of Spain?", "Madrid", "Of Malta?"]


def test_failed_last_turn_asks_again(talk: Conversation) -> None:
    talk = add_turn(talk, "Of Italy?", (Answer("", "smol", error="the worker died"),), now_s=4.0)
    assert _contents(talk)[-1] == "Of Italy?"


def test_pictures_are_asked_about_with_their_prompt_and_again_after_an_edit(talk: Conversation) -> None:
    picture = KeptImage("0" * 64, "image/png", "screen.png")
    talk = add_turn(talk, "What is this?", now_s=4.0, images=(picture,))
    assert messages(talk)[-1] == Said("user", "What is this?", (picture,))
    assert messages(fork_at(talk, 2, "And where?", now_s=5.0))[-1] == Said("user", "And where?", (picture,))


def test_a_prompt_of_pictures_alone_is_titled_by_them() -> None:
    pictures = tuple(KeptImage("0" * 64, "image/png", name) for name in ("a.png", "b.png"))
    assert add_turn(new_conversation(now_s=1.0), "", now_s=2.0, images=pictures).title == "a.png, b.png"


@pytest.mark.parametrize(
    "change",
    [
        lambda talk: add_answer(talk, 2, _answer("x"), now_s=4.0),
        lambda talk: select_answer(talk, -1, 0, now_s=4.0),
        lambda talk: select_answer(talk, 0, 1, now_s=4.0),
        lambda talk: fork_at(talk, 5, "x", now_s=4.0),
        lambda talk: messages(talk, 2),
    ],
)
def test_indexes_out_of_range_are_refused(talk: Conversation, change: Callable[[Conversation], object]) -> None:
    with pytest.raises(InvalidRequestError, match=r"does not exist; .* counted from 0"):
        change(talk)


def test_selection_must_exist() -> None:
    with pytest.raises(ValueError, match="selected is 1, but there are 1 answers"):
        Turn("Hi", (_answer("Hello"),), selected=1)
    assert Turn("Hi").answer is None
