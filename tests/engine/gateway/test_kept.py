"""Bounds of what is kept, with a clock that the tests move."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.gateway.kept import EncodedAnswer, EncodedChoice, KeptAnswer, KeptStore, Written
from engine.inference.request import Delta, Finished, FinishReason, Message, Request, Timing
from tests.fakes import FakeClock

_FINISHED = Finished("one", FinishReason.STOP, 3, 2, 0, Timing(0.0, 0.0))


def _answer(text: str = "Hello") -> KeptAnswer:
    return KeptAnswer((Delta(text), _FINISHED), _FINISHED, "m", 1.5)


def _encoded() -> EncodedAnswer:
    request = Request("m", (Message("user", "Hello"),))
    return EncodedAnswer((EncodedChoice(request, _FINISHED, 1.5),), "m", 1, Written(b"{}", "application/json", "req-"))


def test_the_time_to_live_ends_an_answer() -> None:
    clock = FakeClock()
    store = KeptStore(100_000, 10.0, clock)
    store.put(b"1", _answer())
    clock.advance(9.9)
    assert store.get(b"1") == _answer()
    clock.advance(0.1)
    assert store.get(b"1") is None
    assert store.size_bytes == 0


def test_the_least_recently_used_goes_first() -> None:
    store = KeptStore(3 * _answer().size_bytes, 10.0, FakeClock())
    for key in (b"1", b"2", b"3"):
        store.put(key, _answer())
    store.get(b"1")
    store.put(b"4", _answer())
    assert [key for key in (b"1", b"2", b"3", b"4") if store.get(key)] == [b"1", b"3", b"4"]


def test_an_owner_who_keeps_much_drives_out_his_own_alone() -> None:
    store = KeptStore(3 * _answer().size_bytes, 10.0, FakeClock())
    store.put(b"theirs", _answer(), owner="key-2")
    for number in range(9):
        store.put(bytes([number]), _answer(), owner="key-1")
    assert store.get(b"theirs") is not None
    assert [number for number in range(9) if store.get(bytes([number]))] == [7, 8]


def test_what_is_larger_than_the_bound_is_not_kept_and_drives_nothing_out() -> None:
    store = KeptStore(2 * _answer().size_bytes, 10.0, FakeClock())
    store.put(b"1", _answer())
    store.put(b"2", _answer("x" * 10_000))
    assert store.get(b"2") is None
    assert store.get(b"1") is not None


def test_encoded_answers_live_no_longer_than_what_they_are_made_of() -> None:
    clock = FakeClock()
    store = KeptStore(100_000, 10.0, clock)
    store.put(b"1", _answer())
    clock.advance(6)
    store.put(b"2", _encoded(), (b"1",))
    clock.advance(4)
    assert store.get(b"2") is None


def test_an_encoded_answer_of_something_gone_is_not_kept() -> None:
    store = KeptStore(100_000, 10.0, FakeClock())
    store.put(b"2", _encoded(), (b"1",))
    assert store.get(b"2") is None


def test_clearing_leaves_nothing() -> None:
    store = KeptStore(100_000, 10.0, FakeClock())
    store.put(b"1", _answer())
    store.clear()
    assert store.get(b"1") is None
    assert store.size_bytes == 0
    assert not list(store.answers())


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3_000), st.sampled_from([None, "a", "b"]))),
    st.integers(0, 20_000),
)
def test_the_bound_holds_whatever_comes(puts: list[tuple[int, int, str | None]], max_bytes: int) -> None:
    store = KeptStore(max_bytes, 10.0, FakeClock())
    for key, length, owner in puts:
        store.put(bytes([key]), _answer("x" * length), owner=owner)
        assert store.size_bytes == sum(answer.size_bytes for answer in store.answers()) <= max_bytes
