from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.inference.calls.span import ObjectSpan

_leaves = st.none() | st.booleans() | st.integers() | st.text(alphabet='{}[]"\\ab\n', max_size=6)
_values = st.recursive(_leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text('"{\\', max_size=3), inner))


@given(st.dictionaries(st.text('}"\\x', max_size=4), _values), st.text('}] "x', max_size=5), st.data())
def test_the_end_is_found_in_any_pieces(value: dict[str, Any], rest: str, data: st.DataObject) -> None:
    written = json.dumps(value)
    cut = data.draw(st.integers(1, len(written)))
    span = ObjectSpan()
    text = written + rest
    first = span.feed(text[:cut])
    end = first if first is not None else cut + (span.feed(text[cut:]) or -len(text))
    assert end == len(written)


def test_an_object_that_goes_on_has_no_end() -> None:
    span = ObjectSpan()
    assert [span.feed(piece) for piece in ('{"a": "}', "\\", '"}", "b": [', "{}")] == [None] * 4
