"""What stands in for time, models and threads in tests: a clock, a backend without torch, a tiny real model."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from engine.errors import QueueFullError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.outputs import OutputStream
from engine.inference.request import Delta, Finished, FinishReason, Request, Timing, TokenInfo
from engine.inference.stats import RunnerStats
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.models.comparison import Measured
from engine.models.spec import ModelInfo, ModelSpec

TINY_CONTEXT = 2048
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# What `FakeBackend` says of its model.
FAKE_INFO = ModelInfo("FakeForCausalLM", 1_000, 4_000, "float32", "cpu", 256, 512, 64, 0.1, "0123456789ab")


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Return once `condition` holds; fail when it does not in time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.002)


@dataclass
class FakeClock:
    """Time that moves when the test says so; the two readings differ, as real ones do."""

    seconds: float = 1_000.0
    epoch_s: float = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.seconds

    def wall(self) -> float:
        return self.epoch_s + self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds


@cache
def _fake_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="autoglm-console-fake-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "config.json").touch()
    return folder


def fake_spec(name: str = "m") -> ModelSpec:
    """A model that is found, and that only `FakeBackend` can load."""
    return ModelSpec(str(_fake_folder()), name)


@dataclass
class FakeLoaded:
    """What `FakeBackend` calls a loaded model."""

    name: str
    info: ModelInfo = FAKE_INFO


class FakeSequence:
    """One request in a `FakeRunner`: it answers with the words of `FakeBackend.words`, one a step."""

    def __init__(self, request: Request, timing: Timing, words: Sequence[str | BaseException]) -> None:
        self.request = request
        self.timing = timing
        self.words = deque(words)
        self.num_prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        if request.prompt is not None:
            self.num_prompt_tokens = len(request.prompt.split() if isinstance(request.prompt, str) else request.prompt)
        self.num_output_tokens = 0
        self.is_cancelled = False
        self.stream = OutputStream(request.request_id, timing.received_at_s, self._cancel)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    def _cancel(self) -> None:
        self.is_cancelled = True


class FakeRunner:
    """Keeps the promises of `engine.inference.runner.Runner` with words instead of tensors.

    A step waits for `gate` and raises `error` once it is set.
    """

    def __init__(self, backend: FakeBackend, on_finish: Callable[[Any, Finished], None]) -> None:
        self._backend = backend
        self._on_finish = on_finish
        self._bell = threading.Condition()
        self._sequences: list[FakeSequence] = []
        self._is_closed = False
        self._num_steps = 0

    def submit(self, sequence: Any) -> None:
        with self._bell:
            if len(self._sequences) >= self._backend.max_requests:
                raise QueueFullError("the fake's queue is full")
            self._sequences.append(sequence)
            self._bell.notify_all()

    def cancel(self, request_id: str) -> bool:
        with self._bell:
            found = [sequence for sequence in self._sequences if sequence.request_id == request_id]
        for sequence in found:
            sequence.is_cancelled = True
        return bool(found)

    def deliver(self) -> None:
        """No step is ever under way."""

    def refuse(self) -> None:
        with self._bell:
            self._is_closed = True
            self._bell.notify_all()

    def close(self, error: str | None) -> None:
        self.refuse()
        for sequence in self.requests():
            self._end(sequence, FinishReason.CANCELLED if error is None else FinishReason.ERROR, error)

    def wait(self, timeout_s: float) -> None:
        with self._bell:
            self._bell.wait_for(lambda: bool(self._sequences) or self._is_closed, min(timeout_s, 0.02))

    def wake(self) -> None:
        with self._bell:
            self._bell.notify_all()

    def step(self) -> bool:
        if self._backend.errors:
            raise self._backend.errors.popleft()
        for sequence in self.requests():
            if sequence.is_cancelled:
                self._end(sequence, FinishReason.CANCELLED)
        if not self.requests() or not self._backend.gate.wait(0.005):
            return False
        for sequence in self.requests():
            self._speak(sequence)
        self._num_steps += 1
        return True

    def _speak(self, sequence: FakeSequence) -> None:
        now = self._backend.clock()
        if sequence.timing.scheduled_s is None:
            sequence.timing = replace(sequence.timing, scheduled_s=now, first_token_s=now)
        sequence.timing = replace(sequence.timing, last_token_s=now)
        word = sequence.words.popleft()
        if isinstance(word, BaseException):
            raise word
        sequence.num_output_tokens += 1
        sequence.stream.put(Delta(word, (TokenInfo(sequence.num_output_tokens, word),)))
        if not sequence.words:
            self._end(sequence, FinishReason.STOP)

    def _end(self, sequence: FakeSequence, reason: FinishReason, error: str | None = None) -> None:
        with self._bell:
            self._sequences.remove(sequence)
        sequence.timing = replace(sequence.timing, finished_s=self._backend.clock())
        finished = Finished(
            sequence.request_id,
            reason,
            sequence.num_prompt_tokens,
            sequence.num_output_tokens,
            sequence.request.sampling.seed or 0,
            sequence.timing,
            error,
        )
        sequence.stream.put(finished)
        self._on_finish(sequence, finished)

    def requests(self) -> list[Any]:
        with self._bell:
            return list(self._sequences)

    def stats(self) -> RunnerStats:
        num_running = len(self.requests())
        return RunnerStats(num_running, 0, 16, 256, 0, 10_000, 0.0, self._num_steps, 0, None)


class FakeEmbedder:
    """Keeps the promises of `engine.inference.embedder.Embedder`: every vector points along the first axis. It
    answers when the fake's `gate` is open."""

    def __init__(self, backend: FakeBackend, runner: Any, on_finish: Callable[[Any, Finished], None]) -> None:
        self._backend = backend
        self._wake = runner.wake
        self._on_finish = on_finish
        self._lock = threading.Lock()
        self._jobs: list[EmbeddingJob] = []
        self._is_closed = False

    def submit(self, job: EmbeddingJob) -> None:
        with self._lock:
            if self._is_closed or len(self._jobs) >= self._backend.max_requests:
                raise QueueFullError("the fake's queue is full")
            self._jobs.append(job)
        self._wake()

    def cancel(self, request_id: str) -> bool:
        found = [job for job in self.requests() if job.request_id == request_id]
        for job in found:
            job.close()
        return bool(found)

    def requests(self) -> list[EmbeddingJob]:
        with self._lock:
            return list(self._jobs)

    @property
    def is_asked(self) -> bool:
        return bool(self.requests())

    def step(self, *, is_generating: bool) -> float | None:
        for job in self.requests():
            if job.is_cancelled:
                self._end(job, FinishReason.CANCELLED)
            elif self._backend.gate.is_set():
                job.start(self._backend.clock())
                for index in range(len(job.token_ids)):
                    job.put(index, array("f", [1.0, 0.0]))
                self._end(job, FinishReason.STOP)
        return 0.005 if self.requests() else None

    def refuse(self) -> None:
        self._is_closed = True

    def close(self, error: str | None) -> None:
        self.refuse()
        for job in self.requests():
            self._end(job, FinishReason.CANCELLED if error is None else FinishReason.ERROR, error)

    def _end(self, job: EmbeddingJob, reason: FinishReason, error: str | None = None) -> None:
        with self._lock:
            self._jobs.remove(job)
        self._on_finish(job, job.finish(reason, self._backend.clock(), error))


@dataclass
class FakeBackend:
    """Loads at once and answers with `words`; what a test wants to happen is set on its fields.

    Attributes:
        load_gate: loading waits for it, reporting progress as it waits.
        gate: answering waits for it.
        words: one a step; an exception among them kills the worker at that step.
        load_error, warm_up_error: raised instead.
        errors: raised by the next steps, one each, to kill the worker.
    """

    words: Sequence[str | BaseException] = ("The ", "capital ", "of ", "France ", "is ", "Paris.")
    load_gate: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    load_error: BaseException | None = None
    warm_up_error: BaseException | None = None
    errors: deque[BaseException] = field(default_factory=deque)
    clock: Callable[[], float] = time.perf_counter
    max_requests: int = 64
    num_loads: int = 0
    num_starts: int = 0

    def __post_init__(self) -> None:
        self.load_gate.set()
        self.gate.set()

    def load(self, spec: ModelSpec, on_progress: Callable[[str, float | None], None]) -> Any:
        self.num_loads += 1
        on_progress("loading weights", 0.5)
        while not self.load_gate.wait(0.005):
            on_progress("loading weights", 0.5)
        if self.load_error is not None:
            raise self.load_error
        return FakeLoaded(spec.name or spec.source)

    def mark_memory(self, spec: ModelSpec) -> int:
        return 1_000

    def measure(self, loaded: Any, runner: Any, mark_bytes: int | None) -> Measured:
        grown = None if mark_bytes is None else 5_000 - mark_bytes
        return Measured(FAKE_INFO.device, FAKE_INFO.weights_bytes, 0, 0, grown)

    def start(self, loaded: Any, on_finish: Callable[[Any, Finished], None]) -> Any:
        self.num_starts += 1
        return FakeRunner(self, on_finish)

    def warm_up(self, loaded: Any, runner: Any) -> None:
        if self.warm_up_error is not None:
            raise self.warm_up_error

    def prepare(self, loaded: Any, runner: Any, request: Request, timing: Timing) -> Any:
        request.sampling.check(FAKE_INFO.vocab_size)
        return FakeSequence(request, timing, self.words)

    def start_embedder(self, loaded: Any, runner: Any, on_finish: Callable[[Any, Finished], None]) -> Any:
        return FakeEmbedder(self, runner, on_finish)

    def prepare_embedding(self, loaded: Any, runner: Any, request: EmbeddingRequest, timing: Timing) -> EmbeddingJob:
        token_ids = [list(text.encode()) if isinstance(text, str) else list(text) for text in request.inputs]
        return EmbeddingJob(request, token_ids, float("inf"), timing)

    def tokenize(self, loaded: Any, request: TokenizeRequest) -> Tokens:
        text = request.prompt if request.prompt is not None else "".join(item.content for item in request.messages)
        return Tokens(tuple(text.encode()), FAKE_INFO.context_length, tuple(text) if request.has_texts else None)

    def detokenize(self, loaded: Any, token_ids: tuple[int, ...]) -> str:
        return bytes(token_ids).decode()


def save_tiny_llama(folder: Path, seed: int = 0, **overrides: Any) -> Path:
    """A two-layer Llama of random float32 weights with a byte-level tokenizer and a chat template, as a model
    folder; `overrides` go to its config. Its weights are wide enough that two tokens are never nearly tied."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        **{
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": TINY_CONTEXT,
            "initializer_range": 0.15,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.eos_token_id,
            **overrides,
        }
    )
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).float().eval()
    torch.set_rng_state(generator_state)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """256 byte tokens and the two marks of the chat template; every text can be written, one token a byte."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
