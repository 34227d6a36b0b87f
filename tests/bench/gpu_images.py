"""AutoGLM-Phone-9B's shape on a GPU with random weights: a screenshot of a telephone, and a long prompt that comes
again. Speed only: random weights say nothing of quality."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine import (
    Delta,
    Engine,
    Finished,
    ImagePart,
    Message,
    ModelSpec,
    Request,
    SamplingParams,
    Settings,
)
from tests.bench.engine_speed import await_ready
from tests.bench.results import Figure
from tests.vision_models import picture_bytes, save_glm4v

_TEXT = {
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "max_position_embeddings": 65536,
    "vocab_size": 151552,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": [8, 12, 12],
        "partial_rotary_factor": 0.5,
    },
}
_VISION = {
    "depth": 24,
    "hidden_size": 1536,
    "num_heads": 12,
    "out_hidden_size": 4096,
    "intermediate_size": 13696,
    "patch_size": 14,
    "image_size": 336,
}
_PIXELS = {"shortest_edge": 12_544, "longest_edge": 9_633_792}
_SCREEN = (1080, 2400)
_NUM_OUTPUT = 32
_NAME = "glm"


def measure(home: Path) -> Iterator[Figure]:
    """Start to ready with the weights in the page cache; TTFT and TPOT of one screenshot; TTFT of a long prompt, first
    and again."""
    folder = _save_model(home / "glm9b")
    engine = Engine(Settings(home=home), lambda _record: None)
    try:
        began_s = time.perf_counter()
        engine.load(ModelSpec(str(folder), _NAME, "cuda", "bfloat16"))
        model = await_ready(engine).model
        assert model is not None
        yield Figure("images.gpu9b.ready_s", time.perf_counter() - began_s, "s")
        yield Figure("images.gpu9b.load_bytes_per_s", model.read_bytes_per_s or 0.0, "B/s")
        screen = ImagePart(picture_bytes(1, *_SCREEN))
        _ask(engine, (screen, "first"))
        answer = _ask(engine, (screen, "Where do I tap to open the settings?"))
        yield Figure("images.gpu9b.prompt_tokens", answer.num_prompt_tokens, "tokens")
        yield Figure("images.gpu9b.ttft_s", _ttft_s(answer), "s")
        yield Figure("images.gpu9b.tpot_ms", _tpot_ms(answer), "ms")
        rules = "".join(f"Rule {number}: be brief. " for number in range(400))
        for name in ("first", "again"):
            answer = _ask(engine, f"{rules} And now {name}?")
            yield Figure(f"prefix.gpu9b.{name}.cached_tokens", answer.num_cached_tokens, "tokens")
            yield Figure(f"prefix.gpu9b.{name}.ttft_s", _ttft_s(answer), "s")
    finally:
        engine.close()


def _save_model(folder: Path) -> Path:
    import torch

    with torch.device("cuda"):
        save_glm4v(folder, _TEXT, _VISION, _PIXELS, torch.bfloat16)
    gc.collect()
    torch.cuda.empty_cache()
    return folder


def _ask(engine: Engine, content: Any) -> Finished:
    sampling = SamplingParams(temperature=0.0, max_tokens=_NUM_OUTPUT)
    stream = engine.stream(Request(_NAME, (Message("user", content),), sampling))
    num_tokens = sum(len(event.tokens) for event in stream if isinstance(event, Delta))
    if stream.finished is None or stream.finished.error is not None or num_tokens < 2:
        raise RuntimeError(f"{num_tokens} tokens came: {stream.finished}")
    return stream.finished


def _ttft_s(answer: Finished) -> float:
    assert answer.timing.first_token_s is not None
    return answer.timing.first_token_s - answer.timing.received_s


def _tpot_ms(answer: Finished) -> float:
    assert answer.timing.first_token_s is not None
    assert answer.timing.last_token_s is not None
    gap_s = answer.timing.last_token_s - answer.timing.first_token_s
    return gap_s * 1000 / (answer.num_output_tokens - 1)
