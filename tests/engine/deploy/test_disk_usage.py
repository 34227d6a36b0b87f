from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.disk_usage import Reclaimable, count_reclaimable

LISTED: dict[str, Any] = {
    "LayersSize": 1_000,
    "Images": [
        {"Containers": 1, "Size": 500, "SharedSize": 100},
        {"Containers": 0, "Size": 600, "SharedSize": 100},
        {"Containers": 2, "Size": 700, "SharedSize": -1},
    ],
    "Containers": [{"State": "running", "SizeRw": 7}, {"State": "exited", "SizeRw": 30}, {"State": "created"}],
    "BuildCache": [{"InUse": False, "Shared": False, "Size": 17}, {"InUse": True, "Size": 19}, {"Shared": True}],
}


def test_what_is_listed_is_summed_as_the_command_does() -> None:
    assert count_reclaimable(LISTED) == Reclaimable(600, 30, 17)
    assert count_reclaimable(LISTED).total_bytes == 647


def test_the_engines_own_sums_win() -> None:
    told = {"ImageUsage": {"Reclaimable": 5}, "BuildCacheUsage": {"Reclaimable": 6, "TotalSize": 9}}
    assert count_reclaimable({**LISTED, **told}) == Reclaimable(5, 30, 6)


def test_an_empty_engine_has_nothing_to_free() -> None:
    assert count_reclaimable({}) == Reclaimable()
    assert count_reclaimable({"Images": None, "LayersSize": None, "BuildCache": None}) == Reclaimable()


images = st.lists(
    st.fixed_dictionaries(
        {"Containers": st.integers(-1, 3), "Size": st.integers(-1, 10**12), "SharedSize": st.integers(-1, 10**12)}
    )
)


@given(layers=st.integers(0, 10**13), found=images)
def test_never_negative_and_never_more_than_there_is(layers: int, found: list[dict[str, int]]) -> None:
    for image in found:
        image["SharedSize"] = min(image["SharedSize"], image["Size"])
    assert 0 <= count_reclaimable({"LayersSize": layers, "Images": found}).images_bytes <= layers
