from __future__ import annotations

import pytest

from engine.models.comparison import Comparison, meaning


@pytest.mark.parametrize(
    ("predicted", "measured", "words"),
    [
        (0, 0, "not measured"),
        (1_000_000_000, 1_000_000_000, "as planned"),
        (1_004_000_000, 1_000_000_000, "as planned"),
        (1_050_000_000, 1_000_000_000, "50.0 MB less than planned: they stay free"),
        (950_000_000, 1_000_000_000, "50.0 MB more than planned: tensors that the headers do not show"),
    ],
)
def test_a_difference_in_words(predicted: int, measured: int, words: str) -> None:
    assert meaning(Comparison("weights", predicted, measured)).startswith(words)


def test_why_more_depends_on_what_it_is() -> None:
    assert "allocator" in meaning(Comparison("the process", 1, 2))
    assert meaning(Comparison("KV cache", 1, 2)).endswith("the plan was too small")
