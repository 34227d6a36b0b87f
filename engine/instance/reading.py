"""What can be told of an instance, and what an instance needs of the inference packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.request import Finished, Request, Timing
from engine.inference.stats import RunnerStats
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.models.spec import ModelInfo, ModelSpec

if TYPE_CHECKING:
    from engine.inference.embedder import Embedder
    from engine.inference.runner import Runner
    from engine.inference.sequence import Sequence
    from engine.models.comparison import Measured, MemoryReading
    from engine.models.loader import LoadedModel


class InstanceState(StrEnum):
    """Where an instance is in its life. Only `ready` answers requests."""

    PENDING = "pending"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Role(StrEnum):
    """What a version is to its name. A name has one `serving` version at any time; a swap has a `next` one beside
    it until that is ready, and then the old one is `leaving`."""

    SERVING = "serving"
    NEXT = "next"
    LEAVING = "leaving"


@dataclass(frozen=True, slots=True)
class InstanceInfo:
    """A reading of one instance.

    Attributes:
        reason: why it failed, None otherwise.
        stage: what loading is doing now; `progress` is its fraction, None where it is not known.
        since_s: seconds since the epoch at which the state began.
        retry_at_s: when a failed worker starts again, None when it does not by itself.
        version: 1 for the first under a name, one more with every swap.
        last_used_s: seconds since the epoch at which a request last came or ended, None before the first.
        is_pinned: never unloaded to make room.
        memory: planned and measured, from when it was first warm; None before.
    """

    name: str
    spec: ModelSpec
    state: InstanceState
    reason: str | None
    stage: str | None
    progress: float | None
    since_s: float
    num_restarts: int
    retry_at_s: float | None
    model: ModelInfo | None
    stats: RunnerStats | None
    version: int = 1
    role: Role = Role.SERVING
    last_used_s: float | None = None
    is_pinned: bool = False
    memory: MemoryReading | None = None


class Backend(Protocol):
    """What an instance needs of the inference packages; tests put a fake in its place."""

    def load(self, spec: ModelSpec, on_progress: Callable[[str, float | None], None]) -> LoadedModel:
        """Bring the model into memory, or raise a ConsoleError for the user."""

    def mark_memory(self, spec: ModelSpec) -> int:
        """Bytes that this process holds now on the device that `spec` asks for; WeightsError where it is not there."""

    def measure(self, loaded: LoadedModel, runner: Runner, mark_bytes: int | None) -> Measured:
        """What model and runner hold while they run nothing, and the growth since `mark_memory` where that is given."""

    def start(self, loaded: LoadedModel, on_finish: Callable[[Sequence, Finished], None]) -> Runner:
        """A fresh runner over the model."""

    def warm_up(self, loaded: LoadedModel, runner: Runner) -> None:
        """Generate something, or raise."""

    def prepare(self, loaded: LoadedModel, runner: Runner, request: Request, timing: Timing) -> Sequence:
        """Check a request against the model; raise InvalidRequestError where it does not fit."""

    def start_embedder(
        self, loaded: LoadedModel, runner: Runner, on_finish: Callable[[EmbeddingJob, Finished], None]
    ) -> Embedder:
        """What the thread that steps `runner` runs between its steps."""

    def prepare_embedding(
        self, loaded: LoadedModel, runner: Runner, request: EmbeddingRequest, timing: Timing
    ) -> EmbeddingJob:
        """Check an embedding request against the model; raise InvalidRequestError where it does not fit."""

    def tokenize(self, loaded: LoadedModel, request: TokenizeRequest) -> Tokens:
        """The tokens of a text or of messages; raise InvalidRequestError where there are none."""

    def detokenize(self, loaded: LoadedModel, token_ids: tuple[int, ...]) -> str:
        """The text of tokens; raise InvalidRequestError for one outside the vocabulary."""
