from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.window import Batch, WaitingText, Window, earliest_next_s, plan_batch

_WINDOW = Window(max_texts=4, max_wait_s=0.01, max_tokens=100, max_tokens_beside=30)


def _texts(*num_tokens: int, received_s: float = 1.0) -> list[WaitingText]:
    return [WaitingText(received_s, count) for count in num_tokens]


def test_nothing_waits() -> None:
    assert plan_batch([], _WINDOW, 1.0) == Batch((), None, "nothing waits")


def test_one_text_waits_for_others_until_the_time_is_up() -> None:
    early = plan_batch(_texts(10), _WINDOW, 1.004)
    assert early.num_tokens == ()
    assert early.wait_s is not None
    assert abs(early.wait_s - 0.006) < 1e-9
    assert early.reason == "1 of 4 texts are there"
    late = plan_batch(_texts(10), _WINDOW, 1.01 + 1e-9)
    assert late == Batch((10,), None, "the oldest has waited 10 ms")


def test_the_count_ends_the_wait() -> None:
    assert plan_batch(_texts(1, 2, 3, 4), _WINDOW, 1.0) == Batch((1, 2, 3, 4), None, "4 texts are there")


def test_a_full_batch_of_tokens_ends_the_wait() -> None:
    assert plan_batch(_texts(60, 40), _WINDOW, 1.0) == Batch((60, 40), None, "100 tokens are there")


def test_a_text_that_does_not_fit_is_left_whole_for_the_next_batch() -> None:
    assert plan_batch(_texts(60, 50), _WINDOW, 1.0).num_tokens == (60,)


def test_a_text_longer_than_a_batch_is_cut_and_then_goes_first() -> None:
    assert plan_batch(_texts(250, 10), _WINDOW, 1.0).num_tokens == (100,)
    rest = [WaitingText(1.0, 50, is_begun=True), WaitingText(1.0, 10)]
    assert plan_batch(rest, _WINDOW, 1.0) == Batch((50, 10), None, "a text is cut and has begun")


def test_generation_has_its_turn_first() -> None:
    texts = _texts(1, 2, 3, 4)
    batch = plan_batch(texts, _WINDOW, 1.0, is_generating=True, not_before_s=1.5)
    assert batch == Batch((), 0.5, "it is the turn of the answers that are being generated")
    assert plan_batch(texts, _WINDOW, 1.5, is_generating=True, not_before_s=1.5).num_tokens == (1, 2, 3, 4)
    assert plan_batch(texts, _WINDOW, 1.0, not_before_s=1.5).num_tokens == (1, 2, 3, 4)


def test_batches_are_smaller_while_answers_are_generated() -> None:
    assert plan_batch(_texts(20, 20), _WINDOW, 1.0, is_generating=True).num_tokens == (20,)
    assert plan_batch(_texts(200), _WINDOW, 1.0, is_generating=True).num_tokens == (30,)


def test_a_batch_is_followed_by_a_pause_as_long_while_answers_are_generated() -> None:
    assert earliest_next_s(2.0, 2.25) == 2.5


@given(
    st.lists(st.integers(1, 300), max_size=12),
    st.integers(1, 8),
    st.integers(1, 128),
    st.floats(0, 2, allow_nan=False),
)
def test_every_text_is_run_whole_and_in_order(sizes: list[int], most: int, tokens: int, now_s: float) -> None:
    window = Window(most, 0.0, tokens, tokens)
    left = list(sizes)
    num_batches = 0
    while left:
        waiting = [WaitingText(0.0, count, is_begun=left[0] != sizes[-len(left)]) for count in left]
        batch = plan_batch(waiting, window, now_s)
        assert 1 <= len(batch.num_tokens) <= most
        assert 1 <= sum(batch.num_tokens) <= tokens
        for count in batch.num_tokens:
            left[0] -= count
            if left[0] == 0:
                left.pop(0)
            else:
                assert count == tokens  # only what is longer than a batch is cut
        num_batches += 1
    assert num_batches <= sum(-(-size // tokens) for size in sizes)
