"""What is said of an answer."""

from __future__ import annotations

from dashboard.components.lab_answers import answer_note, common_length
from engine.lab import Answer
from tests.engine.lab.builders import HALF, ORIGINAL


def test_an_answer_is_compared_with_the_originals() -> None:
    first, second = ORIGINAL.answers
    assert answer_note(ORIGINAL, second, second) == "64 tokens, cut there · the original"
    assert answer_note(HALF, HALF.answers[0], first) == "8 tokens · the same as the original's"
    assert answer_note(HALF, HALF.answers[1], second) == "5 tokens · differs after 11 characters"
    assert answer_note(HALF, Answer("x", 1, False), None) == "1 token"


def test_common_length() -> None:
    assert common_length("abc", "abd") == 2
    assert common_length("ab", "abc") == 2
    assert common_length("", "abc") == 0
