from __future__ import annotations

import html
import math
import re

from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.token_view import tokens_as_html
from engine.state import TokenLogprob


def test_colour_goes_from_red_to_green() -> None:
    shown = tokens_as_html([TokenLogprob("sure", 0.0), TokenLogprob("guess", math.log(1e-6))])
    assert re.findall(r"hsla\((\d+),", shown) == ["120", "0"]


def test_alternatives_are_in_the_tooltip() -> None:
    shown = tokens_as_html([TokenLogprob(" a", math.log(0.5), ((" a", math.log(0.5)), ("\nb", math.log(0.25))))])
    (title,) = re.findall(r'title="([^"]*)"', shown)
    assert html.unescape(title).splitlines() == ["␣a  50.0%", "—", "␣a  50.0%", "↵b  25.0%"]


@given(texts=st.lists(st.text(max_size=10), max_size=5))
def test_no_token_becomes_markup(texts: list[str]) -> None:
    shown = tokens_as_html([TokenLogprob(text, -1.0, ((text, -1.0),)) for text in texts])
    assert len(re.findall(r"<(?!/?(?:div|span)\b)", shown)) == 0
    assert shown.count("<span ") == len(texts)
