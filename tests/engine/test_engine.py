from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.errors import (
    ConsoleError,
    ContextLengthError,
    InstanceExistsError,
    InstanceNotFoundError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueFullError,
    WeightsError,
)
from engine.inference.request import (
    WARM_UP,
    Delta,
    Finished,
    FinishReason,
    Message,
    Request,
    SamplingParams,
)
from engine.instance import InstanceState
from engine.latency.record import RequestRecord, Status
from engine.models.spec import ModelSpec
from tests.fakes import TINY_CONTEXT, FakeBackend, fake_spec, wait_until

_HELLO = (Message("user", "Hello"),)
_NO_END = {257: -100.0}

OpenEngine = Callable[..., Engine]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def records() -> list[RequestRecord]:
    return []


@pytest.fixture
def open_engine(tmp_path: Path, records: list[RequestRecord]) -> Iterator[OpenEngine]:
    engines: list[Engine] = []

    def open_one(backend: FakeBackend | None = None, **fields: Any) -> Engine:
        settings = Settings(home=tmp_path, **fields)
        engines.append(Engine(settings, records.append, SystemClock(), (lambda: backend) if backend else None))
        return engines[-1]

    yield open_one
    for engine in engines:
        engine.close()


@pytest.fixture
def engine(open_engine: OpenEngine, backend: FakeBackend) -> Engine:
    """An engine over the fake backend, with the model `m` ready."""
    one = open_engine(backend)
    one.load(fake_spec())
    _await(one, "m", InstanceState.READY)
    return one


@pytest.fixture(scope="module")
def tiny_engine(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The real thing with the tiny model `tiny`, three requests at a time and two waiting."""
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), device="cpu", max_running=3, max_waiting=2, kv_cache_gib=0.1
    )
    one = Engine(settings, lambda _record: None)
    one.load(ModelSpec(str(tiny_folder), "tiny", device="cpu"))
    _await(one, "tiny", InstanceState.READY)
    yield one
    one.close()


def _state(engine: Engine, name: str) -> InstanceState | None:
    return next((info.state for info in engine.instances() if info.name == name), None)


def _await(engine: Engine, name: str, state: InstanceState) -> None:
    wait_until(lambda: _state(engine, name) is state, 60)


def _ask(model: str = "m", sampling: SamplingParams | None = None, **fields: Any) -> Request:
    return Request(model, _HELLO, sampling or SamplingParams(), **fields)


def _endless(seed: int = 1) -> Request:
    """An answer of a few seconds."""
    return _ask("tiny", SamplingParams(seed=seed, max_tokens=1_900, logit_bias=_NO_END))


def _text(events: Any) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


def test_load_answers_at_once(open_engine: OpenEngine, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    engine = open_engine(backend)
    assert engine.load(fake_spec("first")) == "first"
    wait_until(lambda: _state(engine, "first") is InstanceState.LOADING)
    backend.load_gate.set()
    _await(engine, "first", InstanceState.READY)


def test_the_name_is_the_sources_own_unless_given(
    open_engine: OpenEngine, backend: FakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model" / "config.json").touch()
    assert open_engine(backend).load(ModelSpec(str(tmp_path / "my-model"))) == "my-model"


def test_a_model_that_is_not_there(open_engine: OpenEngine, backend: FakeBackend) -> None:
    engine = open_engine(backend)
    with pytest.raises(WeightsError, match="neither a folder nor a file"):
        engine.load(ModelSpec("/nowhere"))
    assert engine.instances() == ()


def test_a_taken_name(engine: Engine, backend: FakeBackend) -> None:
    with pytest.raises(InstanceExistsError, match="'m' is ready already: unload or swap it, or give another name"):
        engine.load(fake_spec())
    assert engine.load(fake_spec("other")) == "other"
    assert [info.name for info in engine.instances()] == ["m", "other"]


def test_a_failed_one_may_be_loaded_again(open_engine: OpenEngine, backend: FakeBackend) -> None:
    engine = open_engine(backend)
    backend.load_error = WeightsError("cut short")
    engine.load(fake_spec())
    _await(engine, "m", InstanceState.FAILED)
    backend.load_error = None
    engine.load(fake_spec())
    _await(engine, "m", InstanceState.READY)
    assert len(engine.instances()) == 1


def test_unload(engine: Engine) -> None:
    engine.unload("m", 0)
    assert engine.instances() == ()
    with pytest.raises(InstanceNotFoundError, match="there is no model named 'm'; loaded: none"):
        engine.unload("m")


def test_unload_while_loading(open_engine: OpenEngine, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    engine = open_engine(backend)
    engine.load(fake_spec())
    wait_until(lambda: backend.num_loads == 1)
    engine.unload("m")
    assert engine.instances() == ()
    backend.load_gate.set()
    engine.load(fake_spec())
    _await(engine, "m", InstanceState.READY)


def test_stream_and_its_record(engine: Engine, records: list[RequestRecord]) -> None:
    stream = engine.stream(_ask(source="api"))
    events = list(stream)
    assert _text(events) == "The capital of France is Paris."
    wait_until(lambda: bool(records))
    record = records[0]
    assert (record.request_id, record.model, record.source) == (stream.request_id, "m", "api")
    assert (record.status, record.finish_reason, record.num_output_tokens) == (Status.SUCCESSFUL, "stop", 6)
    assert record.queue_s is not None
    assert record.ttft_s is not None
    assert 0 <= record.queue_s <= record.ttft_s <= record.e2e_s


def test_an_unknown_model(engine: Engine) -> None:
    with pytest.raises(InstanceNotFoundError, match="there is no model named 'n'; loaded: m"):
        engine.stream(_ask("n"))


def test_a_model_that_is_not_ready(open_engine: OpenEngine, backend: FakeBackend) -> None:
    backend.load_gate.clear()
    engine = open_engine(backend)
    engine.load(fake_spec())
    with pytest.raises(InstanceNotReadyError, match=r"m is (pending|loading); try again"):
        engine.stream(_ask())


def test_a_bad_request_is_refused_before_the_model_is_looked_up(engine: Engine) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        engine.stream(_ask("n", SamplingParams(top_p=2)))
    assert refusal.value.param == "top_p"


def test_requests_and_cancel(engine: Engine, backend: FakeBackend, records: list[RequestRecord]) -> None:
    backend.gate.clear()
    streams = [engine.stream(_ask(source="playground")) for _ in range(2)]
    infos = engine.requests()
    assert [info.request_id for info in infos] == [stream.request_id for stream in streams]
    assert {(info.model, info.source, info.is_running, info.num_prompt_tokens) for info in infos} == {
        ("m", "playground", False, 1)
    }
    assert all(info.age_s >= 0 for info in infos)
    assert engine.cancel(streams[0].request_id)
    wait_until(lambda: len(engine.requests()) == 1)
    assert not engine.cancel(streams[0].request_id)
    wait_until(lambda: bool(records))
    assert (records[0].status, records[0].first_token_s) == (Status.CANCELLED, None)


def test_a_record_that_cannot_be_kept_does_not_hurt_the_model(
    tmp_path: Path, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_record: RequestRecord) -> None:
        raise OSError("disk full")

    engine = Engine(Settings(home=tmp_path), refuse, open_backend=lambda: backend)
    engine.load(fake_spec())
    _await(engine, "m", InstanceState.READY)
    for _ in range(2):
        assert _text(engine.stream(_ask())) == "The capital of France is Paris."
    assert engine.instances()[0].num_restarts == 0
    engine.close()
    assert "is lost" in caplog.text


def test_close_ends_everything(engine: Engine, backend: FakeBackend) -> None:
    backend.gate.clear()
    stream = engine.stream(_ask())
    engine.close()
    assert stream.finished is not None
    assert stream.finished.reason is FinishReason.CANCELLED
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name in ("supervisor:m", "worker:m")]


def test_refusals_are_recorded_apart(tmp_path: Path, backend: FakeBackend, records: list[RequestRecord]) -> None:
    refusals: list[RequestRecord] = []
    engine = Engine(Settings(home=tmp_path), records.append, open_backend=lambda: backend, on_refusal=refusals.append)
    for request in (_ask("nobody"), Request("m", ()), _ask(timeout_s=-1.0, key_id="key-1")):
        with pytest.raises(ConsoleError):
            engine.stream(request)
    engine.note_refusal(_ask(key_id="key-2"), QueueFullError("too many a minute"))
    engine.close()
    reasons = [(record.finish_reason, record.key_id) for record in refusals]
    assert reasons == [
        ("model_not_found", None),
        ("invalid_request", None),
        ("invalid_request", "key-1"),
        ("queue_full", "key-2"),
    ]
    assert records == []


def test_who_asks_is_told_of(engine: Engine, backend: FakeBackend, records: list[RequestRecord]) -> None:
    backend.gate.clear()
    stream = engine.stream(_ask(key_id="key-1"))
    assert [request.key_id for request in engine.requests()] == ["key-1"]
    stream.close()
    wait_until(lambda: bool(records))
    assert records[0].key_id == "key-1"


def test_warm_ups_are_not_recorded(open_engine: OpenEngine, records: list[RequestRecord], tiny_folder: Path) -> None:
    engine = open_engine(device="cpu", kv_cache_gib=0.1)
    engine.load(ModelSpec(str(tiny_folder), "tiny", device="cpu"))
    _await(engine, "tiny", InstanceState.READY)
    assert records == []
    list(engine.stream(_ask("tiny", SamplingParams(max_tokens=2))))
    wait_until(lambda: len(records) == 1)
    assert records[0].source != WARM_UP


def test_real_answers_are_batched(tiny_engine: Engine) -> None:
    params = SamplingParams(seed=3, max_tokens=40, logit_bias=_NO_END)
    alone = _text(tiny_engine.stream(_ask("tiny", params)))
    streams = [tiny_engine.stream(_ask("tiny", replace(params, seed=seed))) for seed in (1, 3, 2)]
    texts = [_text(stream) for stream in streams]
    assert texts[1] == alone
    assert len(set(texts)) == 3


def test_the_reported_seed_gives_the_answer_again(tiny_engine: Engine) -> None:
    events = list(tiny_engine.stream(_ask("tiny", SamplingParams(max_tokens=20))))
    last = events[-1]
    assert isinstance(last, Finished)
    again = list(tiny_engine.stream(_ask("tiny", SamplingParams(max_tokens=20, seed=last.seed))))
    assert _text(again) == _text(events)


def test_closing_an_iterator_cancels(tiny_engine: Engine) -> None:
    events: Any = iter(tiny_engine.stream(_endless()))
    next(events)
    events.close()
    wait_until(lambda: tiny_engine.requests() == ())


def test_closing_an_async_iterator_cancels(tiny_engine: Engine) -> None:
    async def read_one() -> None:
        events: Any = tiny_engine.stream(_endless()).__aiter__()
        async with aclosing(events):
            await anext(events)

    asyncio.run(asyncio.wait_for(read_one(), 20))
    wait_until(lambda: tiny_engine.requests() == ())


def test_a_slow_reader_does_not_hold_others(tiny_engine: Engine) -> None:
    slow = tiny_engine.stream(_endless())
    slow_events: Any = iter(slow)
    next(slow_events)
    quick = _text(tiny_engine.stream(_ask("tiny", SamplingParams(seed=1, max_tokens=10, logit_bias=_NO_END))))
    assert quick
    assert slow.finished is None
    slow_events.close()
    wait_until(lambda: tiny_engine.requests() == ())


def test_a_real_deadline(tiny_engine: Engine) -> None:
    request = replace(_endless(), timeout_s=0.2)
    last = list(tiny_engine.stream(request))[-1]
    assert isinstance(last, Finished)
    assert (last.reason, last.error) == (FinishReason.DEADLINE, "the request did not finish within 0.2 s")


def test_the_queue_is_bounded(tiny_engine: Engine) -> None:
    streams = [tiny_engine.stream(_endless(seed)) for seed in range(5)]
    with pytest.raises(QueueFullError, match="at most 2 may"):
        tiny_engine.stream(_endless())
    for stream in streams:
        stream.close()
    wait_until(lambda: tiny_engine.requests() == ())


def test_unload_amid_answers_ends_them_and_is_no_error(
    tiny_engine: Engine, tiny_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_engine.load(ModelSpec(str(tiny_folder), "short-lived", device="cpu"))
    _await(tiny_engine, "short-lived", InstanceState.READY)
    streams = [tiny_engine.stream(replace(_endless(seed), model="short-lived")) for seed in range(3)]
    assert streams[0].wait(20)
    tiny_engine.unload("short-lived", 0)
    assert [list(stream)[-1].reason for stream in streams] == [FinishReason.CANCELLED] * 3  # type: ignore[union-attr]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("request_", "kind", "param", "words"),
    [
        (Request("tiny", (Message("user", " "),)), InvalidRequestError, "messages", "the prompt is empty"),
        (
            Request("tiny", (Message("user", "x" * TINY_CONTEXT),)),
            ContextLengthError,
            "messages",
            "shorten the prompt or the conversation",
        ),
        (_ask("tiny", SamplingParams(max_tokens=TINY_CONTEXT)), ContextLengthError, "max_tokens", "lower it"),
        (_ask("tiny", SamplingParams(logit_bias={258: 1})), InvalidRequestError, "logit_bias", "from 0 to 257"),
    ],
    ids=["empty", "long prompt", "long answer", "bias"],
)
def test_bad_requests(
    tiny_engine: Engine, request_: Request, kind: type[InvalidRequestError], param: str, words: str
) -> None:
    with pytest.raises(kind, match=words) as refusal:
        tiny_engine.stream(request_)
    assert refusal.value.param == param
    assert tiny_engine.requests() == ()


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _garbage(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"GGUF" + b"\xff" * 500)


def _no_gguf(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "m.gguf").write_bytes(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_truncate, "the file is cut short, fetch it again"),
        (_pickle, "only pickled weights (pytorch_model.bin)"),
        (_garbage, "m.gguf cannot be read as a model"),
        (_no_gguf, "is not a GGUF file"),
    ],
)
def test_weights_that_cannot_be_loaded_are_a_reason_and_can_be_mended(
    open_engine: OpenEngine, tiny_folder: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    spoil(folder)
    engine = open_engine(device="cpu", kv_cache_gib=0.1)
    name = engine.load(ModelSpec(str(folder), "m", device="cpu"))
    _await(engine, name, InstanceState.FAILED)
    reason = engine.instances()[0].reason
    assert reason is not None
    assert words in reason
    assert "\n" not in reason
    shutil.rmtree(folder)
    shutil.copytree(tiny_folder, folder)
    engine.load(ModelSpec(str(folder), "m", device="cpu"))
    _await(engine, name, InstanceState.READY)


@pytest.mark.model
def test_the_sample_model_answers(sample_engine: Engine) -> None:
    (instance,) = sample_engine.instances()
    question = (Message("user", "What is the capital of France?"),)
    request = Request(instance.name, question, SamplingParams(temperature=0.0, max_tokens=12))
    assert "Paris" in _text(sample_engine.stream(request))
