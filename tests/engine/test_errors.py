from __future__ import annotations

import pytest

from engine import errors
from engine.errors import ConsoleError, ContextLengthError, InvalidRequestError

_CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, ConsoleError)]


@pytest.mark.parametrize("kind", _CLASSES)
def test_each_has_a_status_and_a_word(kind: type[ConsoleError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.code.replace("_", "").isalpha()
    assert kind.code.islower()
    assert kind.__doc__


def test_words_are_distinct() -> None:
    assert len({kind.code for kind in _CLASSES}) == len(_CLASSES)


def test_an_invalid_request_names_its_field() -> None:
    assert InvalidRequestError("top_p is 7", "top_p").param == "top_p"
    assert ContextLengthError("too long").param is None
