"""The errors that the console raises on purpose.

Each message names the value, the bound and the remedy, because it is shown to a person unchanged. The API maps
each class to one HTTP status through `status`, pages show the message in one `st.error`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.environment.check import CheckResult


class ConsoleError(Exception):
    """Base of every error that has a message for the user.

    Attributes:
        status: the HTTP status the API answers with.
        code: a short stable word for programs.
        retry_after_s: seconds after which another try may go better; None where waiting does not help, or nobody
            can tell.
        headers: what else the answer's headers tell.
    """

    status = 500
    code = "internal_error"
    retry_after_s: float | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class SettingsError(ConsoleError):
    """A setting has a value that the console refuses to start with."""

    code = "invalid_settings"


class ProfileError(ConsoleError):
    """An environment profile does not exist, or a key of it is wrong."""

    status = 400
    code = "invalid_profile"


class EnvironmentUnfitError(ConsoleError):
    """The machine does not meet a profile. `failed` are the check results that refuse, worst first."""

    status = 409
    code = "environment_unfit"

    def __init__(self, message: str, failed: tuple[CheckResult, ...]) -> None:
        super().__init__(message)
        self.failed = failed


class ReportNotFoundError(ConsoleError):
    """No environment report was taken yet."""

    status = 404
    code = "no_report"


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


class BodyTooLargeError(ConsoleError):
    """The body of a request has more bytes than the server reads."""

    status = 413
    code = "body_too_large"


class BodyTimeoutError(ConsoleError):
    """The body of a request came too slowly. The connection ends with the answer, as the rest may still come."""

    status = 408
    code = "body_timeout"
    headers = MappingProxyType({"connection": "close"})


class BodiesFullError(ConsoleError):
    """The bodies that are being read have as many bytes together as the server holds."""

    status = 503
    code = "bodies_full"
    retry_after_s = 1.0


class AuthenticationError(ConsoleError):
    """No API key, or not one of the configured ones."""

    status = 401
    code = "invalid_api_key"


class ScopeError(ConsoleError):
    """The API key is known, and may not do this."""

    status = 403
    code = "missing_scope"


class HostError(ConsoleError):
    """Where no key is needed, a request came under a name that anybody may have lead here."""

    status = 403
    code = "host_refused"


class KeyNotFoundError(ConsoleError):
    """There is no API key in force by that id."""

    status = 404
    code = "key_not_found"


class RateLimitError(ConsoleError):
    """An API key has used up one of its quotas.

    Attributes:
        retry_after_s: when the same request would pass.
        headers: what else the answer's headers tell of the quotas.
    """

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, retry_after_s: float, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = dict(headers)


class RequestNotFoundError(ConsoleError):
    """No request by that id is waiting or running."""

    status = 404
    code = "request_not_found"


class ResponseNotFoundError(ConsoleError):
    """No response by that id is stored for the caller's key."""

    status = 404
    code = "response_not_found"


class InstanceNotFoundError(ConsoleError):
    """No loaded instance goes by that name."""

    status = 404
    code = "model_not_found"


class InstanceNotReadyError(ConsoleError):
    """The instance exists but cannot answer now (loading, draining, failed)."""

    status = 503
    code = "model_not_ready"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InstanceExistsError(ConsoleError):
    """An instance of that name is loaded already."""

    status = 409
    code = "model_exists"


class QueueFullError(ConsoleError):
    """More requests, or more tokens of prompts, are waiting than the instance may hold."""

    status = 429
    code = "queue_full"

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueTimeoutError(ConsoleError):
    """The request did not start within the time that it may wait in the queue."""

    status = 503
    code = "queue_timeout"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


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
