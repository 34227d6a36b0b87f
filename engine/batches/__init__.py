"""Offline jobs: the rows of a file, each a request, answered when there is room beside whoever waits."""

from __future__ import annotations

from engine.batches.batch import ENDPOINTS, OPEN, WINDOW, Batch, BatchStatus, Counts, LineError
from engine.batches.batches import Batches
from engine.batches.file_store import StoredFile
from engine.batches.files import MAX_FILE_BYTES
from engine.batches.rows import MAX_ROWS, Row
from engine.batches.runner import RowAnswer

__all__ = [
    "ENDPOINTS",
    "MAX_FILE_BYTES",
    "MAX_ROWS",
    "OPEN",
    "WINDOW",
    "Batch",
    "BatchStatus",
    "Batches",
    "Counts",
    "LineError",
    "Row",
    "RowAnswer",
    "StoredFile",
]
