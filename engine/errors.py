"""The errors that the console raises on purpose.

Each message names the value, the bound and the remedy, because it is shown to a person unchanged. The API maps
each class to one HTTP status through `status`, pages show the message in one `st.error`.
"""

from __future__ import annotations


class ConsoleError(Exception):
    """Base of every error that has a message for the user.

    Attributes:
        status: the HTTP status the API answers with.
        code: a short stable word for programs.
    """

    status = 500
    code = "internal_error"


class SettingsError(ConsoleError):
    """A setting has a value that the console refuses to start with."""

    code = "invalid_settings"


class InvalidRequestError(ConsoleError):
    """A request names a value that cannot be honoured. `param` is the field's name."""

    status = 400
    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ContextLengthError(InvalidRequestError):
    """Prompt and answer together do not fit into the model's context."""

    code = "context_length_exceeded"


class AuthenticationError(ConsoleError):
    """No API key, or not one of the configured ones."""

    status = 401
    code = "invalid_api_key"


class InstanceNotFoundError(ConsoleError):
    """No loaded instance goes by that name."""

    status = 404
    code = "model_not_found"


class InstanceNotReadyError(ConsoleError):
    """The instance exists but cannot answer now (loading, draining, failed)."""

    status = 503
    code = "model_not_ready"


class InstanceExistsError(ConsoleError):
    """An instance of that name is loaded already."""

    status = 409
    code = "model_exists"


class QueueFullError(ConsoleError):
    """More requests are waiting than the instance may hold."""

    status = 429
    code = "queue_full"


class DeadlineError(ConsoleError):
    """The request ran past its deadline."""

    status = 504
    code = "deadline_exceeded"


class WorkerDiedError(ConsoleError):
    """The thread that ran the request's model ended before the request did."""

    status = 500
    code = "worker_died"


class WeightsError(ConsoleError):
    """A model's files are missing, damaged, of a refused kind, or cannot be served."""

    status = 400
    code = "invalid_weights"


class StoreError(ConsoleError):
    """A store cannot be opened, read or written."""

    code = "store_unavailable"
