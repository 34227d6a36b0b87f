from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from engine.environment.python.ranges import find_exclusion, find_yielding, intersect, is_empty, newest_inside

# Specifiers over the whole numbers 1 to 4, and versions on, between and around them: whatever such specifiers admit,
# they admit one of these.
NUMBERS = range(1, 5)
VERSIONS = [
    version
    for number in range(6)
    for version in (
        *(f"{number}.{rest}" for rest in ("dev1", "0a1", "0rc1", "0", "0.post1", "0.1", "5")),
        f"{number}.0+cpu",
        f"{number}.0+cu130",
    )
]
specifier = st.one_of(
    st.builds("{}{}".format, st.sampled_from([">=", "<=", ">", "<", "==", "!="]), st.sampled_from(NUMBERS)),
    st.builds("{}{}.*".format, st.sampled_from(["==", "!="]), st.sampled_from(NUMBERS)),
    st.builds("~={}.0".format, st.sampled_from(NUMBERS)),
    st.builds("=={}.0+cpu".format, st.sampled_from(NUMBERS)),
    st.builds(">={}.0rc1".format, st.sampled_from(NUMBERS)),
)
specifier_sets = st.builds(SpecifierSet, st.lists(specifier, max_size=3).map(",".join))
wishes = st.lists(specifier_sets, max_size=5)


def admitted(specifiers: list[SpecifierSet]) -> set[str]:
    """By brute force."""
    return {version for version in VERSIONS if all(item.contains(version, prereleases=True) for item in specifiers)}


def sets(*texts: str) -> list[SpecifierSet]:
    return [SpecifierSet(text) for text in texts]


@given(wishes)
def test_the_intersection_admits_what_each_admits(specifiers: list[SpecifierSet]) -> None:
    together = intersect(specifiers)
    assert admitted([together]) == admitted(specifiers)
    assert is_empty(specifiers) is together.is_unsatisfiable() is (not admitted(specifiers))


@given(wishes)
def test_the_exclusion_is_the_smallest_group_that_admits_nothing(specifiers: list[SpecifierSet]) -> None:
    group = find_exclusion(specifiers)
    if admitted(specifiers):
        assert group == ()
        return
    assert not admitted([specifiers[index] for index in group])
    smaller = (smaller for size in range(1, len(group)) for smaller in combinations(specifiers, size))
    assert all(admitted(list(others)) for others in smaller)


@given(wishes, st.sets(st.integers(0, 4)))
def test_those_who_yield_are_the_fewest_that_may(specifiers: list[SpecifierSet], fixed: set[int]) -> None:
    group = find_yielding(specifiers, fixed)
    assert not fixed & set(group)

    def is_enough(gone: tuple[int, ...]) -> bool:
        return bool(admitted([item for index, item in enumerate(specifiers) if index not in gone]))

    movable = [index for index in range(len(specifiers)) if index not in fixed]
    enough = [gone for size in range(4) for gone in combinations(movable, size) if is_enough(gone)]
    assert group == (enough[0] if enough else ())


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((">=1", ">=1.5", "<3", "<2"), "<2,>=1.5"),
        (("==2.4.6", ">=1,<3"), "==2.4.6"),
        ((">=1", ">=1"), ">=1"),
        (("==1.0", "==1.0+cpu"), "==1.0+cpu"),
        (("", ""), ""),
        (("~=1.4", "!=1.5.*"), "!=1.5.*,~=1.4"),
        (("===1.0", ">=0.5"), "===1.0,>=0.5"),
    ],
)
def test_what_follows_from_others_is_left_out(texts: tuple[str, ...], expected: str) -> None:
    assert str(intersect(sets(*texts))) == expected


@pytest.mark.parametrize(
    ("texts", "group"),
    [
        ((">=1", "<2"), ()),
        ((">=1", "<2", ">=2"), (1, 2)),
        ((">=1", "<=1", "!=1.*", ">0"), (0, 1, 2)),
        (("<3", ">2,<1"), (1,)),
        (("===1.0", "<2", "===1.1"), (0, 2)),
        (("<2.0", ">=2.0rc1"), (0, 1)),
        (("==2.13.0+cpu", "==2.13.0+cu130"), (0, 1)),
    ],
)
def test_exclusions(texts: tuple[str, ...], group: tuple[int, ...]) -> None:
    assert find_exclusion(sets(*texts)) == group


def test_a_group_too_large_to_search_for_cannot_lose_a_member() -> None:
    holes = [f"!=1.{number}.*" for number in range(60)]
    specifiers = sets(*holes, ">=1.0.dev0,<1.60.dev0", ">=0")
    assert find_exclusion(specifiers) == tuple(range(61))
    assert find_yielding(specifiers) == (0,)


@pytest.mark.parametrize(
    ("text", "newest"),
    [("<2", "1.5"), (">=2", "2.0"), (">=2.1rc1", "2.1rc1"), (">2.0", "2.1rc1"), ("<1", None), ("==1.0", "1.0+cpu")],
)
def test_the_newest_inside_takes_prereleases_as_pip_does(text: str, newest: str | None) -> None:
    versions = ["1.0+cpu", "1.0", "1.5", "2.0", "2.1rc1", "nonsense"]
    assert newest_inside(SpecifierSet(text), versions) == newest
