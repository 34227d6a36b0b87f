"""Version ranges asked for together: what is left, who excludes whom, who would have to yield.

The set algebra is packaging's. It works on all versions that PEP 440 can write, not on those that were released, so a
range that is not empty may still hold no release.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations, islice

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

_MAX_TRIES = 5_000  # of some 20 microseconds


def intersect(specifiers: Iterable[SpecifierSet]) -> SpecifierSet:
    """What all of them admit, without the parts that follow from others: `>=1,>=1.5,<2` becomes `>=1.5,<2`."""
    together = _join(specifiers)
    if together.is_unsatisfiable() or any(part.operator == "===" for part in together):
        return together
    parts = [SpecifierSet(str(part)) for part in together]
    for part in sorted(parts, key=str):
        rest = _join(other for other in parts if other is not part)
        if rest.is_subset(part):
            parts.remove(part)
    return _join(parts)


def is_empty(specifiers: Iterable[SpecifierSet]) -> bool:
    """Can no version at all satisfy them together."""
    return _join(specifiers).is_unsatisfiable()


def find_exclusion(specifiers: Sequence[SpecifierSet]) -> tuple[int, ...]:
    """The smallest group that admits no version together, as indices; empty where one version suits everybody.

    Mostly a pair, for two plain intervals that both meet a third meet each other; holes (`!=`) can make it three or
    more. Beyond a bounded number of tries the group is one that nobody can be left out of, but maybe not the smallest.
    """
    if not is_empty(specifiers):
        return ()
    everyone = range(len(specifiers))
    groups = (group for size in (1, 2, 3) for group in combinations(everyone, size))
    for group in islice(groups, _MAX_TRIES):
        if is_empty(specifiers[index] for index in group):
            return group
    kept = list(everyone)
    for index in everyone:
        if is_empty(specifiers[other] for other in kept if other != index):
            kept.remove(index)
    return tuple(kept)


def find_yielding(specifiers: Sequence[SpecifierSet], fixed: Collection[int] = ()) -> tuple[int, ...]:
    """The fewest that have to give way so that one version suits the rest, earlier ones first; never one of `fixed`.

    Empty where nobody has to, and where no group of up to three helps.
    """
    if not is_empty(specifiers):
        return ()
    movable = [index for index in range(len(specifiers)) if index not in fixed]
    groups = (group for size in (1, 2, 3) for group in combinations(movable, size))
    for group in islice(groups, _MAX_TRIES):
        if not is_empty(specifier for index, specifier in enumerate(specifiers) if index not in group):
            return group
    return ()


def newest_inside(specifier: SpecifierSet, versions: Iterable[str]) -> str | None:
    """The newest of `versions` that the range admits; pre-releases as pip takes them: where asked for, or nothing else
    is there. What is not a version is passed over."""
    return max(specifier.filter(filter(_is_version, versions)), key=Version, default=None)


def _join(specifiers: Iterable[SpecifierSet]) -> SpecifierSet:
    together = SpecifierSet()
    for specifier in specifiers:
        together &= specifier
    return together


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
