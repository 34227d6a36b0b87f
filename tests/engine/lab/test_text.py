"""The bundled text."""

from __future__ import annotations

from engine.lab import bundled_text


def test_it_is_long_enough_and_plain() -> None:
    found = bundled_text()
    assert found.startswith("CHAPTER I\n")
    assert len(found) > 20_000
    assert found.isascii()
