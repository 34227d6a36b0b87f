from __future__ import annotations

import json
from dataclasses import replace

from engine.state.conversation import KeptImage, add_turn, new_conversation
from engine.state.export import to_json, to_markdown
from engine.state.payload import from_payload
from tests.engine.state.builders import make_conversation

MARKDOWN = """\
# Capital of France?

**System prompt**

> Be brief.
> Be kind.

## User

Capital of France?

## smol

Paris ☕

*12 tokens in, 2 out · queue 1.5 ms · TTFT 250.0 ms · TPOT 12.5 ms · 75.2 tok/s · seed 7 · finish reason stop*

## User

And now?

## smol (selected)

Yes.

*0 tokens in, 0 out*

## phone

> **Error:** the worker died
> and restarts

*0 tokens in, 0 out*
"""


def test_json_reads_back_whole() -> None:
    talk = make_conversation()
    text = to_json(talk, lambda _image: None)
    assert from_payload(text) == talk
    assert "\n  " in text


def test_pictures_are_in_the_json_once_and_named_in_the_markdown() -> None:
    screen, gone = KeptImage("a" * 64, "image/png", "screen.png"), KeptImage("b" * 64, "image/png", "gone.png")
    talk = add_turn(new_conversation(now_s=1.0), "☕", now_s=2.0, images=(screen, gone))
    talk = add_turn(talk, "", now_s=2.0, images=(screen,))
    text = to_json(talk, {screen: b"pixels", gone: None}.get)
    assert json.loads(text)["images"] == {"a" * 64: "data:image/png;base64,cGl4ZWxz"}
    assert from_payload(text) == talk
    assert "> screen.png (image/png, SHA-256 aaaaaaaaaaaa)\n\n> gone.png" in to_markdown(talk)


def test_markdown_is_the_talk_to_read() -> None:
    assert to_markdown(make_conversation()) == MARKDOWN


def test_markdown_leaves_out_answers_that_were_replaced() -> None:
    assert "Lyon" not in to_markdown(make_conversation())


def test_markdown_of_an_empty_conversation() -> None:
    assert to_markdown(new_conversation(now_s=1.0)) == "# Conversation\n"


def test_markdown_title_stays_one_heading() -> None:
    assert to_markdown(replace(new_conversation(now_s=1.0), title="a\n# b")) == "# a # b\n"
