from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.inference.decode_graphs import sizes_up_to


@given(st.integers(1, 1_024))
def test_every_batch_has_a_graph_that_is_not_much_larger(most: int) -> None:
    sizes = sizes_up_to(most)
    assert sizes[-1] == most
    assert list(sizes) == sorted(set(sizes))
    for num_rows in range(1, most + 1):
        assert min(size for size in sizes if size >= num_rows) <= max(2 * num_rows, num_rows + 64)


@pytest.mark.parametrize(("most", "sizes"), [(1, (1,)), (16, (1, 2, 4, 8, 16)), (20, (1, 2, 4, 8, 16, 20))])
def test_sizes(most: int, sizes: tuple[int, ...]) -> None:
    assert sizes_up_to(most) == sizes
