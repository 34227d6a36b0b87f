"""Experiments as they come out of a run, for stores, exports and pages."""

from __future__ import annotations

from engine.lab import Answer, Estimate, Experiment, ExperimentStatus, Plan, Quality, Speed, Variant, VariantResult
from engine.models.spec import Granularity, Quantization, Scheme

INT4 = Variant("auto", Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 32))
PLAN = Plan("sample", (Variant("bfloat16"), INT4), ("What is the capital of France?", "Why is the sky blue?"))
ORIGINAL = VariantResult(
    Variant(),
    is_reference=True,
    dtype="float32",
    device="cpu",
    load_s=2.0,
    weights_bytes=538_000_000,
    process_bytes=600_000_000,
    quality=Quality(2_032, Estimate(18.0, 16.0, 20.0), Estimate(1.0), Estimate(0.0), 0.0, 1.0),
    answers=(Answer("The capital of France is Paris.", 8, False), Answer("Because of *scattering*.", 64, True)),
    speed=Speed(Estimate(0.1, 0.09, 0.12), Estimate(20.0, 19.0, 21.0), Estimate(100.0, 95.0, 104.0)),
)
HALF = VariantResult(
    Variant("bfloat16"),
    dtype="bfloat16",
    device="cpu",
    load_s=1.0,
    weights_bytes=269_000_000,
    process_bytes=300_000_000,
    quality=Quality(
        2_032, Estimate(18.09, 16.1, 20.1), Estimate(1.005, 1.001, 1.01), Estimate(0.002, 0.001, 0.003), 0.01, 0.99
    ),
    answers=(Answer("The capital of France is Paris.", 8, False), Answer("Because of air.", 5, False)),
    speed=Speed(Estimate(0.2, 0.19, 0.22), Estimate(15.0, 14.0, 16.0), Estimate(110.0, 105.0, 114.0)),
)
REFUSED = VariantResult(INT4, error="there is no room: unload a model")


def experiment(experiment_id: str = "one", started_at_s: float = 1_700_000_000.0) -> Experiment:
    """The original, a variant, and one that failed."""
    return Experiment(experiment_id, started_at_s, PLAN, ExperimentStatus.DONE, 90.0, (ORIGINAL, REFUSED, HALF))
