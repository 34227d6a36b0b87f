from __future__ import annotations

from pathlib import Path

from dashboard.components.quantize_form import bar, made_text
from engine.models.quantizing import QuantizedFolder
from engine.models.spec import Granularity, Quantization, Scheme
from engine.staged_job import StageProgress


def test_progress_names_what_goes_where() -> None:
    progress = StageProgress("sample into /q/m", "quantizing to int8-weight", 0.25, 0.0)
    assert bar(progress) == (0.25, r"sample into /q/m\: quantizing to int8-weight, 25%")
    assert bar(StageProgress("sample into /q/m", "saving", None, 0.0)) == (0.0, r"sample into /q/m\: saving")


def test_what_was_saved_with_its_ratio() -> None:
    quantization = Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 32)
    made = QuantizedFolder("my_m", Path("/q/m"), quantization, 95_000_000, 99_000_000, 200_000_000)
    assert made_text(made).startswith(r"**my\_m** as int4-weight, group of 32")
    assert "99.0 MB on disk, 50 % of the 200.0 MB that its weights take in bfloat16; 95.0 MB in memory." in made_text(
        made
    )
