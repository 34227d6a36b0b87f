"""The table for other programs."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

from engine.lab import to_csv
from tests.engine.lab.builders import experiment


def test_a_line_a_variant_with_intervals_and_reasons() -> None:
    original, refused, half = csv.DictReader(io.StringIO(to_csv(experiment())))
    assert original["variant"] == "float32"
    assert original["is_original"] == "True"
    assert (half["perplexity"], half["perplexity_low"], half["perplexity_high"]) == ("18.09", "16.1", "20.1")
    assert half["eight_streams_tokens_per_s"] == "110.0"
    assert half["num_text_tokens"] == "2032"
    assert refused["error"] == "there is no room: unload a model"
    assert refused["kl"] == refused["ttft_s_low"] == refused["weights_bytes"] == ""


def test_without_results_there_is_the_header() -> None:
    assert to_csv(replace(experiment(), results=())).startswith("variant,is_original,dtype,")
