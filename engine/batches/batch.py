"""A batch as plain data: what was asked, how far it is, what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

WINDOW = "24h"
WINDOW_S = 86_400.0
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


class BatchStatus(StrEnum):
    """OpenAI's words for where a batch is."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"


# What still has to be worked on, also after a restart.
OPEN = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING})
CANCELLABLE = frozenset({BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a file was refused: the number of the line, from 1, and the field, where there is one."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows: all, those with an answer, and those with an error."""

    total: int = 0
    completed: int = 0
    failed: int = 0

    @property
    def fraction(self) -> float:
        """The share that is done, 0 to 1."""
        return (self.completed + self.failed) / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one file, each a request to one endpoint.

    Attributes:
        key_id: the API key that made it; None where no key was needed.
        output_file_id, error_file_id: drawn at the beginning; the files are there once it has ended, and where `has_`
            says so.
        reached_at_s: when it came to each status that it has been in, in seconds since the epoch.
        expires_at_s: when what has not been run by then will not be.
        held_up: why rows wait at present; None where they do not.
    """

    id: str
    key_id: str | None
    endpoint: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    created_at_s: float
    expires_at_s: float
    status: BatchStatus = BatchStatus.VALIDATING
    metadata: Mapping[str, str] | None = None
    model: str | None = None
    counts: Counts = Counts()
    errors: tuple[LineError, ...] = ()
    has_output: bool = False
    has_errors: bool = False
    reached_at_s: Mapping[BatchStatus, float] = field(default_factory=dict)
    held_up: str | None = None

    @property
    def is_open(self) -> bool:
        """There is work left."""
        return self.status in OPEN

    def to(self, status: BatchStatus, now_s: float) -> Batch:
        """The same one, having come to `status` now."""
        return replace(self, status=status, reached_at_s={**self.reached_at_s, status: now_s})
