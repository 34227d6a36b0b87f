"""How far an experiment is, in words."""

from __future__ import annotations

from dashboard.components.lab_run import progress_text
from engine.lab import LabProgress, Step
from tests.engine.lab.builders import experiment


def test_progress_names_variant_and_step() -> None:
    progress = LabProgress(experiment(), "bfloat16", 1, Step.QUALITY, 0.4)
    assert progress_text(progress) == "Variant 2 of 3, bfloat16: predicting the text, 40%"
    loading = LabProgress(experiment(), "bfloat16", 1, Step.LOADING, None, "loading weights")
    assert progress_text(loading) == "Variant 2 of 3, bfloat16: loading weights"
    over = LabProgress(experiment(), "bfloat16", 3)
    assert progress_text(over).startswith("Variant 3 of 3")
