from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.router.affinity import (
    BLOCK_CHARS,
    MAX_BLOCKS,
    SeenPrefixes,
    conversation_key,
    prefix_hashes,
)

SYSTEM = ("system", "s" * BLOCK_CHARS * 2)


def test_prompts_share_as_many_hashes_as_blocks() -> None:
    one = prefix_hashes([SYSTEM, ("user", "a" * BLOCK_CHARS * 2)])
    two = prefix_hashes([SYSTEM, ("user", "b" * BLOCK_CHARS * 2)])
    assert len(one) == len(two) == 4
    assert one[:2] == two[:2]
    assert not set(one[2:]) & set(two[2:])


def test_a_short_prompt_has_none_and_a_long_one_is_bounded() -> None:
    assert prefix_hashes([("user", "hello")]) == ()
    assert len(prefix_hashes([("user", "x" * BLOCK_CHARS * (MAX_BLOCKS + 50))])) == MAX_BLOCKS


def test_the_share_is_counted_from_the_first_block_on() -> None:
    seen = SeenPrefixes()
    hashes = prefix_hashes([("user", "".join(f"{number:08}" for number in range(BLOCK_CHARS // 2)))])
    seen.add("one", hashes[:2])
    seen.add("two", hashes[1:])
    assert seen.share("one", hashes) == 0.5
    assert seen.share("two", hashes) == 0.0
    assert seen.share("one", ()) == 0.0


def test_the_least_recently_used_blocks_go() -> None:
    seen = SeenPrefixes(capacity=2)
    seen.add("one", [b"a", b"b"])
    seen.add("one", [b"a"])
    seen.add("one", [b"c"])
    assert [seen.share("one", [block]) for block in (b"a", b"b", b"c")] == [1.0, 0.0, 1.0]


TURNS = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=30)), max_size=5)


@given(TURNS, st.text(max_size=20), TURNS)
def test_a_conversation_keeps_its_key_as_it_grows(
    before: list[tuple[str, str]], first: str, more: list[tuple[str, str]]
) -> None:
    opening = [turn for turn in before if turn[0] != "user"] + [("user", first)]
    assert conversation_key(opening + more) == conversation_key(opening)


def test_another_beginning_is_another_conversation() -> None:
    keys = {
        conversation_key(turns)
        for turns in (
            [("user", "hello")],
            [("user", "hello!")],
            [("system", "be brief"), ("user", "hello")],
            [("system", "be brief\x1euser\0hello")],
        )
    }
    assert len(keys) == 4
    assert conversation_key([("user", "\ud800")])
