"""The quantization lab: what a smaller model costs in quality and gains in speed and size, measured."""

from __future__ import annotations

from engine.lab.experiment import (
    Answer,
    Estimate,
    Experiment,
    ExperimentRunningError,
    ExperimentStatus,
    Plan,
    Quality,
    Speed,
    VariantResult,
)
from engine.lab.export import to_csv
from engine.lab.lab import Lab
from engine.lab.pareto import pareto_front
from engine.lab.progress import LabProgress, Step
from engine.lab.store import ExperimentStore, ExperimentSummary, from_json, to_json
from engine.lab.text import BUNDLED_TITLE, bundled_text
from engine.lab.variant import Variant

__all__ = [
    "BUNDLED_TITLE",
    "Answer",
    "Estimate",
    "Experiment",
    "ExperimentRunningError",
    "ExperimentStatus",
    "ExperimentStore",
    "ExperimentSummary",
    "Lab",
    "LabProgress",
    "Plan",
    "Quality",
    "Speed",
    "Step",
    "Variant",
    "VariantResult",
    "bundled_text",
    "from_json",
    "pareto_front",
    "to_csv",
    "to_json",
]
