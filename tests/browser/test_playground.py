"""The playground as a person meets it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import Server
from tests.fakes import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.slow]

LONG = "Write a very long story about a dragon who learns to cook, with many chapters."


def open_playground(page: Page, server: Server, query: str = "") -> Locator:
    """The enabled chat box."""
    page.goto(f"{server.url}/playground{query}")
    box = page.get_by_placeholder("Ask something")
    box.wait_for()
    page.wait_for_function("() => !document.querySelector('textarea[placeholder=\"Ask something\"]').disabled")
    return box


def keep_answers_short(page: Page) -> None:
    """At most 24 tokens an answer in each lane: what an unseeded answer says must not decide how long a test takes."""
    for panel in page.get_by_role("button", name="Parameters").all():
        panel.click()
        field = page.get_by_role("spinbutton", name="Max tokens")
        field.fill("24")
        field.press("Enter")
        page.keyboard.press("Escape")
        field.wait_for(state="hidden")


def ask(page: Page, box: Locator, text: str) -> None:
    box.fill(text)
    box.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()


def answer_text(page: Page) -> str:
    return page.get_by_test_id("stChatMessage").last.inner_text()


def num_running(server: Server) -> float:
    found = re.search(r"^vllm:num_requests_running\{[^}]*\} (\S+)$", server.read("/metrics"), re.MULTILINE)
    assert found is not None
    return float(found.group(1))


def test_answer_streams_and_shows_what_it_took(page: Page, server: Server) -> None:
    box = open_playground(page, server)
    ask(page, box, LONG)
    lengths: list[int] = []

    def has_grown() -> bool:
        lengths.append(len(answer_text(page)))
        return len({length for length in lengths if length > 60}) >= 3

    wait_until(has_grown, 30)
    assert page.get_by_text(re.compile(r"\d+ tokens · [\d.]+ tok/s · TTFT \d+ ms")).is_visible()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text(re.compile(r"tokens in, \d+ out · queue .* TTFT .* TPOT .* tok/s · seed \d+")).wait_for()


def test_stop_keeps_the_part_and_frees_the_engine(page: Page, server: Server) -> None:
    box = open_playground(page, server)
    ask(page, box, LONG)
    wait_until(lambda: num_running(server) == 1, 15)
    wait_until(lambda: len(answer_text(page)) > 80, 30)
    page.get_by_role("button", name="Stop").click()
    wait_until(lambda: num_running(server) == 0, 5)
    page.get_by_text("cancelled").wait_for()
    assert len(answer_text(page)) > 80


def test_closing_the_tab_frees_the_engine(browser: Browser, server: Server) -> None:
    context = browser.new_context()
    page = context.new_page()
    ask(page, open_playground(page, server), LONG)
    wait_until(lambda: num_running(server) == 1, 15)
    context.close()
    wait_until(lambda: num_running(server) == 0, 15)


def test_conversation_survives_a_reload(page: Page, server: Server) -> None:
    box = open_playground(page, server)
    keep_answers_short(page)
    ask(page, box, "What is the capital of France?")
    page.get_by_text("tokens in").wait_for()
    assert "c=" in page.url
    before = answer_text(page)
    page.reload()
    page.get_by_text("tokens in").wait_for()
    assert answer_text(page).splitlines()[0] == before.splitlines()[0]


def test_regenerate_keeps_both_answers(page: Page, server: Server) -> None:
    box = open_playground(page, server)
    keep_answers_short(page)
    ask(page, box, "Say one word.")
    page.get_by_role("button", name="Regenerate").click()
    page.get_by_text("2 / 2").wait_for()


def test_edit_sends_again_and_leaves_the_original(page: Page, server: Server) -> None:
    box = open_playground(page, server)
    keep_answers_short(page)
    ask(page, box, "What is the capital of Spain?")
    page.get_by_text("tokens in").wait_for()
    original = page.url
    page.get_by_test_id("stChatMessage").first.get_by_role("button").click()
    editor = page.get_by_label("Prompt", exact=True)
    editor.fill("What is the capital of Italy?")
    page.get_by_role("button", name="Send", exact=True).click()
    page.wait_for_url(lambda url: url != original)
    page.get_by_test_id("stChatMessage").get_by_text("What is the capital of Italy?").wait_for()
    page.get_by_text("tokens in").wait_for()
    page.goto(original)
    page.get_by_text("What is the capital of Spain?").first.wait_for()


def test_two_lanes_with_one_seed_answer_alike(page: Page, server: Server) -> None:
    box = open_playground(page, server, "?mode=Compare")
    keep_answers_short(page)
    ask(page, box, "Name three colours.")
    page.get_by_text("Continue with this").wait_for()
    messages = page.get_by_test_id("stChatMessage")
    first, second = (messages.nth(index).inner_text().split(" tokens in")[0] for index in (1, 2))
    assert len(first) > 40
    assert first == second


def test_two_browsers_are_answered_together(browser: Browser, server: Server) -> None:
    contexts = [browser.new_context(), browser.new_context()]
    pages = [context.new_page() for context in contexts]
    boxes = [open_playground(page, server) for page in pages]
    for page, box in zip(pages, boxes, strict=True):
        ask(page, box, LONG)
    wait_until(lambda: num_running(server) == 2, 20)
    wait_until(lambda: all(len(answer_text(page)) > 80 for page in pages), 60)
    for context in contexts:
        context.close()
    wait_until(lambda: num_running(server) == 0, 15)
