from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from engine.models.footprint import read_footprint
from engine.models.image_sizes import largest_image_tokens
from engine.models.loader import load_model
from engine.models.run_lines import Demand, working_lines
from engine.models.spec import ModelSpec
from engine.models.weight_lines import Placement, total_bytes, weight_lines
from engine.weights.store import plain_weights
from tests.vision_models import picture, save_tiny_glm4v, save_tiny_llava

_GLM = {"image_processor_type": "Glm4vImageProcessor", "patch_size": 14, "merge_size": 2}
_QWEN = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}


@pytest.mark.parametrize(
    ("name", "values", "tokens"),
    [
        ("preprocessor_config.json", {**_GLM, "size": {"longest_edge": 5_000_000, "shortest_edge": 12_544}}, 3_188),
        ("preprocessor_config.json", {**_QWEN, "max_pixels": 12_845_056}, 16_384),
        ("processor_config.json", {"image_processor": {**_QWEN, "size": {"longest_edge": 784_000}}}, 1_000),
        ("preprocessor_config.json", {"size": {"shortest_edge": 336}, "patch_size": 14}, None),
        ("preprocessor_config.json", {"size": {"longest_edge": 364}}, None),
        ("preprocessor_config.json", [], None),
    ],
)
def test_the_largest_image(tmp_path: Path, name: str, values: Any, tokens: int | None) -> None:
    (tmp_path / name).write_text(json.dumps(values))
    assert largest_image_tokens(tmp_path) == tokens


def test_without_a_file(tmp_path: Path) -> None:
    assert largest_image_tokens(tmp_path) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("save", [save_tiny_glm4v, save_tiny_llava])
def test_a_pass_takes_what_was_planned(save: Any, dtype: Any, tmp_path: Path) -> None:
    """Weights to the byte; the activations of the largest image no more than planned, and no less than half of it."""
    folder = save(tmp_path / "m")
    spec = ModelSpec(str(folder), name="m", device="cpu", dtype=dtype)
    loaded = load_model(spec, plain_weights(tmp_path / "weights"), lambda _stage, _fraction: None)
    footprint, placement = read_footprint(folder), Placement("cpu", dtype)
    assert total_bytes(weight_lines(footprint, placement)) == loaded.info.weights_bytes
    assert loaded.vision is not None
    prompt = loaded.vision.read("<|image|>", [picture(0, 64, 64)])
    lines = working_lines(footprint, placement, Demand(512, image_tokens=16), 256, has_framework=True)
    planned = next(line for line in lines if line.what == "image encoder's activations")
    assert f"for one image of {prompt.num_image_tokens} tokens" in planned.how
    peak = _peak_bytes(lambda: loaded.vision.encode(prompt.next_pixels or {}, torch.device("cpu")))  # type: ignore[union-attr]
    assert planned.num_bytes / 2 < peak <= planned.num_bytes


def _peak_bytes(run: Any) -> int:
    with torch.inference_mode():
        run()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            run()
    result: Any = recorded.profiler
    events = [event for event in result.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak
