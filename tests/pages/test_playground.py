"""The playground on an engine of fakes, without a browser."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from engine import Console
from engine.state import TurnKind, add_answer, add_turn, new_conversation
from engine.state.conversation import Answer, Conversation
from tests.fakes import FakeBackend
from tests.pages.conftest import OpenPage, load


def stored(console: Console) -> Conversation:
    """The conversation changed last."""
    found = console.conversations.get(console.conversations.list(1)[0].id)
    assert found is not None
    return found


def shown(page: AppTest) -> str:
    return "\n".join(item.value for item in page.markdown)


def click(page: AppTest, key: str) -> AppTest:
    return page.button(key=key).click().run()


def ask(console: Console, open_page: OpenPage, text: str = "What is the capital of France?") -> AppTest:
    load(console, "m")
    return open_page("playground").chat_input[0].set_value(text).run()


def test_without_a_model_it_says_where_to_load_one(open_page: OpenPage) -> None:
    page = open_page("playground")
    assert "No model is loaded" in page.info[0].value
    assert page.chat_input[0].disabled


def test_an_answer_is_shown_measured_and_stored(console: Console, open_page: OpenPage) -> None:
    page = ask(console, open_page)
    assert "The capital of France is Paris." in shown(page)
    assert any("6 out · queue" in item.value for item in page.caption)
    (turn,) = stored(console).turns
    assert turn.answer is not None
    assert turn.answer.text == "The capital of France is Paris."


def test_a_stored_conversation_opens_by_its_address(console: Console, open_page: OpenPage) -> None:
    ask(console, open_page)
    page = open_page("playground", c=stored(console).id)
    assert "The capital of France is Paris." in shown(page)


def test_an_unknown_address_opens_a_new_one_and_says_so(console: Console, open_page: OpenPage) -> None:
    load(console, "m")
    page = open_page("playground", c="nowhere")
    assert "was deleted, or never was here" in page.warning[0].value
    assert not page.chat_message


def test_regenerate_adds_an_answer_and_goes_back_and_forth(
    console: Console, open_page: OpenPage, backend: FakeBackend
) -> None:
    page = ask(console, open_page)
    backend.words = ("Lyon.",)
    page = click(page, "turn.0.regenerate")
    assert "Lyon." in shown(page)
    page = click(page, "turn.0.variant.-1")
    assert "Paris." in shown(page)
    assert len(stored(console).turns[0].answers) == 2


def test_delete_can_be_undone(console: Console, open_page: OpenPage) -> None:
    page = ask(console, open_page)
    kept = stored(console)
    page = click(page, f"history.delete.{kept.id}")
    assert console.conversations.list() == ()
    assert not page.chat_message
    assert page.sidebar.caption[0].value == "What is deleted is gone for good after 30 days, pictures included."
    page = click(page, "history.undo")
    assert stored(console) == kept
    assert "Paris." in shown(page)


def test_a_prompt_that_was_never_answered_can_be(console: Console, open_page: OpenPage) -> None:
    load(console, "m")
    left = add_turn(new_conversation(now_s=1.0), "hello?", now_s=2.0)
    console.conversations.save(left)
    page = open_page("playground", c=left.id)
    assert "not answered" in page.info[0].value
    page = click(page, "turn.0.regenerate")
    assert "Paris." in shown(page)


def test_an_answer_that_failed_shows_its_reason(console: Console, open_page: OpenPage) -> None:
    broken = add_turn(new_conversation(now_s=1.0), "hello?", now_s=2.0)
    broken = add_answer(broken, 0, Answer("par", "m", error="the worker of m died"), now_s=3.0)
    console.conversations.save(broken)
    page = open_page("playground", c=broken.id)
    assert page.error[0].value == "the worker of m died"
    assert "par" in shown(page)


def test_comparison_keeps_one_answer_a_lane_and_goes_on_with_the_chosen(console: Console, open_page: OpenPage) -> None:
    load(console, "m")
    page = open_page("playground", mode="Compare").chat_input[0].set_value("hi").run()
    (turn,) = stored(console).turns
    assert (turn.kind, len(turn.answers), turn.selected) == (TurnKind.COMPARE, 2, 0)
    assert [answer.seed for answer in turn.answers] == [1, 1]
    click(page, "turn.0.1.continue")
    assert stored(console).turns[0].selected == 1


def test_system_prompt_belongs_to_the_conversation(console: Console, open_page: OpenPage) -> None:
    load(console, "m")
    page = open_page("playground")
    page = page.text_area[0].set_value("Answer in French.").run()
    page.chat_input[0].set_value("hi").run()
    assert stored(console).system_prompt == "Answer in French."
