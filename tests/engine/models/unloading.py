"""What unloading gives back, measured on this process with a real model of some 130 MB. Not collected with the others:
test_release.py runs it in a process of its own, where nobody else takes or gives back memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.inference.request import Message, Request, SamplingParams
from engine.inference.runner import Runner
from engine.models.spec import DType, ModelSpec
from tests.fakes import save_tiny_llama, wait_until

_SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 5,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "large", **_SHAPE)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr("engine.instance.instance._FIRST_PAUSE_S", 0.02)
    one = Engine(Settings(home=tmp_path, device="cpu", kv_cache_gib=0.2), lambda _record: None)
    yield one
    one.close()


def _rss_bytes() -> int:
    used: int = psutil.Process().memory_info().rss
    return used


def _load(engine: Engine, folder: Path, dtype: DType) -> int:
    """The bytes of the weights, once the model is ready."""
    engine.load(ModelSpec(str(folder), "m", device="cpu", dtype=dtype))
    wait_until(lambda: engine.instances()[0].state in ("ready", "failed"), 120)
    info = engine.instances()[0]
    assert info.model is not None, info.reason
    return info.model.weights_bytes


def _stream(engine: Engine, seed: int = 1) -> Any:
    params = SamplingParams(seed=seed, max_tokens=40, logit_bias={257: -100.0})
    return engine.stream(Request("m", (Message("user", "x" * 200),), params))


def _leave_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unload what nobody has asked."""


def _answer(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in [_stream(engine, seed) for seed in range(3)]:
        list(stream)


def _be_amid_answers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _stream(engine).wait(30)


def _die(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker's error, its traceback and the model in its frames."""

    def fail(*_: Any) -> None:
        raise RuntimeError("device-side assert")

    with monkeypatch.context() as patch:
        patch.setattr("engine.instance.worker.logger.disabled", True)  # pytest keeps log records with tracebacks
        patch.setattr(Runner, "_compute_chunks", fail)
        list(_stream(engine))
    wait_until(lambda: engine.instances()[0].state == "ready" and engine.instances()[0].num_restarts == 1, 30)


@pytest.mark.parametrize("use", [_leave_alone, _answer, _be_amid_answers, _die])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_unload_returns_the_weights(
    engine: Engine,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    dtype: DType,
    use: Callable[[Engine, pytest.MonkeyPatch], None],
) -> None:
    before_bytes = _rss_bytes()
    weights_bytes = _load(engine, folder, dtype)
    assert weights_bytes > 60e6
    use(engine, monkeypatch)
    loaded_bytes = _rss_bytes()
    engine.unload("m", 0)

    def is_back() -> bool:
        """Less by the weights, or back where it was: a load may use free heap that earlier tests left resident."""
        now_bytes = _rss_bytes()
        return loaded_bytes - now_bytes >= 0.9 * weights_bytes or now_bytes - before_bytes <= 0.1 * weights_bytes

    wait_until(is_back)


def test_loading_again_and_again_does_not_grow(engine: Engine, folder: Path) -> None:
    readings = []
    for _ in range(4):
        weights_bytes = _load(engine, folder, "bfloat16")
        engine.unload("m", 0)
        readings.append(_rss_bytes())
    assert readings[-1] - readings[0] < 0.2 * weights_bytes
