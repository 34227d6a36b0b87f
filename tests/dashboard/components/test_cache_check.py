from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dashboard.components.cache_check import damage_text, gap_text, mend_help, mend_label, report_text
from engine.weights.cache_jobs import CacheReport, Damaged
from engine.weights.upkeep import Damage

_DAMAGE = Damage("acme/tiny@0123", Path("/weights/hub/tiny"), "model_1.safetensors", "its content changed")
_REPORT = CacheReport(1_000.0, 2.5, 3, 1_500_000_000, ())


def test_a_whole_cache_in_words() -> None:
    assert report_text(_REPORT, 1_065.0) == (
        "The cache is as it was fetched: 3 models, 1.5 GB compared with their digests 1 min 5 s ago in 2.50 s."
    )


def test_what_has_no_digests_is_not_called_whole() -> None:
    report = replace(_REPORT, without_digests=("my_model 0123",))
    assert report_text(report, 1_000.0).startswith("No damage was found: 3 models")
    assert gap_text(report).startswith(r"Only headers were checked of my\_model 0123: unpacked before")


def test_damage_in_words() -> None:
    report = CacheReport(1_000.0, 2.5, 1, 10, (Damaged(_DAMAGE, "acme/tiny 0123", True),))
    assert "has 1 damaged file: 1 model" in report_text(report, 1_000.0)
    assert damage_text(report.damaged[0]) == r"**model\_1.safetensors** of acme/tiny 0123: its content changed."


def test_mending_says_what_it_does() -> None:
    fetched, removed = (Damaged(_DAMAGE, "acme/tiny 0123", can_fetch) for can_fetch in (True, False))
    assert (mend_label(fetched), mend_label(removed)) == ("Fetch it again", "Remove the model")
    assert "from the hub" in mend_help(fetched)
    assert "unpacked from its GGUF file" in mend_help(removed)
