from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.scheduling.unloading import Resident, choose_to_unload

_RESIDENTS = st.lists(
    st.builds(
        Resident,
        name=st.text("abcdefgh", min_size=1, max_size=4),
        held_bytes=st.integers(0, 100),
        num_requests=st.integers(0, 2),
        last_used_s=st.floats(0, 1_000),
        is_pinned=st.booleans(),
        why_not=st.sampled_from([None, None, "it is draining"]),
    ),
    max_size=6,
    unique_by=lambda resident: resident.name,
)


def _idle(name: str, held: int = 10, used_s: float = 0.0) -> Resident:
    return Resident(name, held, 0, used_s)


def test_what_fits_costs_nobody_anything() -> None:
    choice = choose_to_unload([_idle("a")], 5, 5, 60.0)
    assert (choice.names, choice.is_enough) == ((), True)
    assert choice.reasons == ("a stays: there is room without it",)


def test_the_least_recently_used_goes_first() -> None:
    choice = choose_to_unload([_idle("new", used_s=50.0), _idle("old", used_s=10.0)], 15, 5, 60.0)
    assert (choice.names, choice.freed_bytes) == (("old",), 10)
    assert choice.reasons == ("old is unloaded: idle for 50 s", "new stays: there is room without it")


def test_as_many_as_it_takes() -> None:
    choice = choose_to_unload([_idle("c", used_s=3.0), _idle("a", used_s=1.0), _idle("b", used_s=2.0)], 25, 5, 60.0)
    assert choice.names == ("a", "b")


def test_a_small_old_one_is_spared_when_the_next_is_large_enough_alone() -> None:
    choice = choose_to_unload([_idle("small", 1, 1.0), _idle("large", 30, 2.0)], 25, 5, 60.0)
    assert choice.names == ("large",)


def test_nobody_is_unloaded_in_vain() -> None:
    choice = choose_to_unload([_idle("a")], 100, 5, 60.0)
    assert (choice.names, choice.freed_bytes, choice.is_enough) == ((), 0, False)
    assert choice.reasons == ("a stays: unloading it would not be enough",)


def test_in_use_pinned_and_leaving_ones_stay_and_say_why() -> None:
    instances = [
        Resident("busy", 10, 1, 0.0),
        Resident("busier", 10, 2, 0.0),
        Resident("pinned", 10, 0, 0.0, is_pinned=True),
        Resident("going", 10, 0, 0.0, why_not="it is draining"),
    ]
    choice = choose_to_unload(instances, 10, 5, 60.0)
    assert not choice.is_enough
    assert choice.reasons == (
        "busy stays: it is in use (1 request)",
        "busier stays: it is in use (2 requests)",
        "pinned stays: it is pinned",
        "going stays: it is draining",
    )


@given(_RESIDENTS, st.integers(0, 300), st.integers(0, 300))
def test_whatever_is_there(instances: list[Resident], needed_bytes: int, free_bytes: int) -> None:
    choice = choose_to_unload(instances, needed_bytes, free_bytes, 2_000.0)
    by_name = {resident.name: resident for resident in instances}
    chosen = [by_name[name] for name in choice.names]
    may_go = [one for one in instances if not one.is_pinned and not one.num_requests and one.why_not is None]
    missing_bytes = needed_bytes - free_bytes
    assert all(one in may_go for one in chosen)
    assert len(choice.reasons) == len(instances)
    assert choice.freed_bytes == sum(one.held_bytes for one in chosen)
    assert choice.is_enough == (sum(one.held_bytes for one in may_go) >= missing_bytes)
    assert [one.last_used_s for one in chosen] == sorted(one.last_used_s for one in chosen)
    if choice.is_enough:
        assert choice.freed_bytes >= missing_bytes
        assert all(choice.freed_bytes - one.held_bytes < max(0, missing_bytes) for one in chosen)
    else:
        assert chosen == []
