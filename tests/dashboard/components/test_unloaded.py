from __future__ import annotations

from dashboard.components.unloaded import unloaded_text
from engine.models.spec import ModelSpec
from engine.room import Unloaded


def test_who_when_for_whom_and_why_it() -> None:
    item = Unloaded("phone_9b", ModelSpec("sample"), "next", 1_000.0, 3_600.0, 18_000_000_000)
    assert unloaded_text(item, 1_065.0) == (
        r"**phone\_9b** was unloaded 1 min 5 s ago to make room for **next**: nobody had used it for 1 h, and it "
        "held 18.0 GB."
    )
