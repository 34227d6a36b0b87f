"""The bundled text: the first two chapters of Alice's Adventures in Wonderland by Lewis Carroll (1865, public domain),
a paragraph a line; 22,000 characters, about 6,000 tokens of an English vocabulary."""

from __future__ import annotations

from pathlib import Path

BUNDLED_TITLE = "Alice's Adventures in Wonderland, chapters I and II (Lewis Carroll, 1865)"

_FILE = Path(__file__).with_name("alice.txt")


def bundled_text() -> str:
    """The text."""
    return _FILE.read_text(encoding="utf-8")
