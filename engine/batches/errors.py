"""What cannot be done with files and batches, each with the HTTP status the API answers with."""

from __future__ import annotations

from engine.errors import ConsoleError


class FileUnknownError(ConsoleError):
    """No file by that id belongs to the caller's key."""

    status = 404
    code = "file_not_found"


class FileInUseError(ConsoleError):
    """A batch that has not ended reads the file."""

    status = 409
    code = "file_in_use"


class FileTooLargeError(ConsoleError):
    """A file has more bytes than one may have, or there is no more room for it among the others."""

    status = 413
    code = "file_too_large"


class BatchUnknownError(ConsoleError):
    """No batch by that id belongs to the caller's key."""

    status = 404
    code = "batch_not_found"


class BatchEndedError(ConsoleError):
    """A batch cannot be cancelled any more."""

    status = 409
    code = "batch_ended"


class TooManyBatchesError(ConsoleError):
    """A key has as many batches under way as it may."""

    status = 429
    code = "too_many_batches"
    retry_after_s = 60.0


class BatchesUnavailableError(ConsoleError):
    """This process cannot work on batches: another one does for this home folder, or the folder cannot be written."""

    status = 503
    code = "batches_unavailable"
