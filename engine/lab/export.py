"""An experiment's figures as a table for other programs."""

from __future__ import annotations

import csv
import io

from engine.lab.experiment import Estimate, Experiment, Quality, Speed, VariantResult


def to_csv(experiment: Experiment) -> str:
    """One line a variant, the original first; an estimate takes three columns, and what was not measured is empty."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(_to_row(VariantResult(experiment.plan.reference))), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_to_row(result) for result in experiment.results)
    return stream.getvalue()


def _to_row(result: VariantResult) -> dict[str, object]:
    quality, speed = result.quality, result.speed
    return {
        "variant": result.label,
        "is_original": result.is_reference,
        "dtype": result.dtype,
        "device": result.device,
        "weights_bytes": result.weights_bytes,
        "process_bytes": result.process_bytes,
        "load_s": result.load_s,
        "num_text_tokens": getattr(quality, "num_tokens", None),
        **_spread("perplexity", quality),
        **_spread("perplexity_ratio", quality),
        **_spread("kl", quality),
        "kl_p95": getattr(quality, "kl_p95", None),
        "top1_agreement": getattr(quality, "top1_agreement", None),
        **_spread("ttft_s", speed),
        **_spread("one_stream_tokens_per_s", speed),
        **_spread("eight_streams_tokens_per_s", speed),
        "was_disturbed": result.was_disturbed,
        "error": result.error,
    }


def _spread(name: str, found: Quality | Speed | None) -> dict[str, float | None]:
    estimate: Estimate | None = getattr(found, name, None)
    return {
        name: getattr(estimate, "value", None),
        f"{name}_low": getattr(estimate, "low", None),
        f"{name}_high": getattr(estimate, "high", None),
    }
