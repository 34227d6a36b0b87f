"""The bodies of `/v1/batches`, in OpenAI's terms."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from engine.api.schemas import Body, WholeText
from engine.batches import WINDOW, Batch, BatchStatus

# OpenAI's own bounds.
_Key = Annotated[WholeText, Field(max_length=64)]
_Value = Annotated[WholeText, Field(max_length=512)]


class BatchRequest(Body):
    """Fields that are not here are refused by name."""

    input_file_id: WholeText
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
    completion_window: Literal["24h"]
    metadata: dict[_Key, _Value] | None = Field(None, max_length=16)


class BatchError(BaseModel):
    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = Field(description="null where rows name several")
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = Field(description="the answers, once the batch has ended; null where there are none")
    error_file_id: str | None = Field(description="the rows with errors; null where there are none")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> BatchObject:
        """As the API shows it."""
        counts = batch.counts
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            model=batch.model,
            errors=_errors(batch),
            input_file_id=batch.input_file_id,
            completion_window=WINDOW,
            status=batch.status,
            output_file_id=batch.output_file_id if batch.has_output else None,
            error_file_id=batch.error_file_id if batch.has_errors else None,
            created_at=int(batch.created_at_s),
            expires_at=int(batch.expires_at_s),
            request_counts=RequestCounts(total=counts.total, completed=counts.completed, failed=counts.failed),
            metadata=None if batch.metadata is None else dict(batch.metadata),
            in_progress_at=_when(batch, BatchStatus.IN_PROGRESS),
            finalizing_at=_when(batch, BatchStatus.FINALIZING),
            completed_at=_when(batch, BatchStatus.COMPLETED),
            failed_at=_when(batch, BatchStatus.FAILED),
            expired_at=_when(batch, BatchStatus.EXPIRED),
            cancelling_at=_when(batch, BatchStatus.CANCELLING),
            cancelled_at=_when(batch, BatchStatus.CANCELLED),
        )


class BatchList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def _when(batch: Batch, status: BatchStatus) -> int | None:
    reached_at_s = batch.reached_at_s.get(status)
    return None if reached_at_s is None else int(reached_at_s)


def _errors(batch: Batch) -> BatchErrors | None:
    if not batch.errors:
        return None
    return BatchErrors(
        data=[
            BatchError(code=error.code, line=error.line, message=error.message, param=error.param)
            for error in batch.errors
        ]
    )
