"""Requests to a Kubernetes API server: the only module that imports the client library.

The library is used for what is hard to get right (credential plugins, token refresh, TLS, proxies); bodies pass
through as plain JSON. Its generated models are not: importing them takes seven times as long as the rest of it, and
those of client 37 refuse some replies of a 1.20 server.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.deadline import call_within
from engine.deploy.kubernetes.credential_program import limit_program
from engine.deploy.kubernetes.errors import ClusterConfigError, ClusterRequestError
from engine.deploy.kubernetes.explain import explain_refusal, explain_silence
from engine.deploy.kubernetes.kubeconfig import Connection

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

CONNECT_TIMEOUT_S = 2.0
READ_TIMEOUT_S = 3.0
CREDENTIALS_TIMEOUT_S = 5.0
_MARGIN_S = 1.0
_JSON = "application/json"


class KubernetesClient:
    """One cluster, as one user. Threads may share it."""

    def __init__(self, connection: Connection, api: ApiClient) -> None:
        self.connection = connection
        self.server = re.sub(r"//[^/@]*@", "//", str(api.configuration.host))  # for texts: a password is not told
        self._api = api

    @property
    def token(self) -> str | None:
        """The bearer token in use, which is a secret; None with a client certificate."""
        value = self._api.configuration.api_key.get("BearerToken")
        return str(value).split()[-1] if value else None

    def get(self, path: str, query: Mapping[str, str | int] | None = None, limit_s: float = READ_TIMEOUT_S) -> Any:
        """The JSON at `path` (`/api/v1/nodes`); `limit_s` shortens the time to wait for an answer.

        Raises:
            ClusterRequestError: no answer within the timeouts above, or not a good one.
        """
        return self.request("GET", path, query, limit_s=limit_s)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Create what `body` describes and give the server's JSON.

        Raises:
            ClusterRequestError: as of `get`.
        """
        return self.request("POST", path, body=body)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = _JSON,
        limit_s: float | None = None,
    ) -> Any:
        """Send one request, once: nothing is retried, so that a dead server costs one timeout.

        Raises:
            ClusterRequestError: as of `get`.
        """
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        timeouts_s = CONNECT_TIMEOUT_S, min(READ_TIMEOUT_S, READ_TIMEOUT_S if limit_s is None else limit_s)
        headers = {"Accept": _JSON} | ({"Content-Type": content_type} if body is not None else {})
        try:
            prepared = self._api.param_serialize(
                method, path, {}, list((query or {}).items()), headers, body, auth_settings=["BearerToken"]
            )
            response = self._api.call_api(*prepared, _request_timeout=timeouts_s)
            data = response.read()
        except (HTTPError, ApiException, ConfigException, OSError) as error:
            raise explain_silence(self.connection, self.server, error, timeouts_s) from error
        if not 200 <= response.status < 300:
            raise explain_refusal(self.connection, self.server, response.status, data)
        try:
            return json.loads(data)
        except ValueError as error:
            remedy = f"Check that {self.server} is a Kubernetes API server and not a proxy's sign-in page."
            raise ClusterRequestError(
                f"{self.server}{path} did not answer with JSON", remedy, response.status
            ) from error


def open_client(connection: Connection) -> KubernetesClient:
    """Load the credentials; runs the context's credential program, if it has one, for at most 5 s. Nothing is sent.

    The client closes its connections when nobody holds it any more.

    Raises:
        ClusterConfigError: the kubeconfig or its credentials cannot be used.
    """
    import_module("kubernetes.config")  # before the clock starts: on a busy machine the import alone takes seconds
    with _Overheard() as overheard:
        try:
            # In a thread of its own because the library also waits for a sign-in server without a limit.
            return call_within(CREDENTIALS_TIMEOUT_S + _MARGIN_S, lambda: _load(connection, overheard))
        except ClusterConfigError:
            raise
        except TimeoutError:
            failure = _lacking(connection, f": no answer within {CREDENTIALS_TIMEOUT_S + _MARGIN_S:g} s")
        except Exception as error:  # noqa: BLE001 - the library raises nearly anything over a malformed kubeconfig
            where = connection.kubeconfig or "the pod's service account"
            detail = _without_entries(str(error)) or type(error).__name__
            remedy = f"Restore {where}, or fetch it anew from whoever runs the cluster."
            failure = ClusterConfigError(f"{where} cannot be used: {detail}", remedy)
    # Not chained to the library's error, whose text a log would show whole.
    raise failure


def _load(connection: Connection, overheard: _Overheard) -> KubernetesClient:
    from kubernetes import client

    configuration = client.Configuration()
    configuration.retries = False
    overheard.listen_here()
    _load_context(connection, configuration)
    if connection.credential_command and not (configuration.api_key or configuration.cert_file):
        raise _lacking(connection, f": {'; '.join(overheard.messages)}" if overheard.messages else "")
    return KubernetesClient(connection, client.ApiClient(configuration))


def _load_context(connection: Connection, configuration: Any) -> None:
    from kubernetes import config
    from kubernetes.config.kube_config import KubeConfigMerger

    if connection.kubeconfig is None:
        config.load_incluster_config(configuration)
    elif connection.credential_command is None:
        config.load_kube_config(connection.kubeconfig, connection.context, configuration)
    else:
        merged = KubeConfigMerger(connection.kubeconfig).config
        for user in merged.value["users"]:
            plugin = (user.value.get("user") or {}).get("exec")
            if isinstance(plugin, dict) and "command" in plugin:
                limit_program(plugin, CREDENTIALS_TIMEOUT_S)
        # Not kept: what is changed here is not to be written into the user's file.
        config.load_kube_config_from_dict(merged, connection.context, configuration, persist_config=False)


def _lacking(connection: Connection, detail: str) -> ClusterConfigError:
    command = connection.credential_command or "the sign-in of the context"
    return ClusterConfigError(
        f"{command} gave no credentials for context {connection.context!r}{detail}",
        f"Run kubectl get --raw /version in a terminal: it shows what {command} says, or asks for; then check again.",
    )


def _without_entries(text: str) -> str:
    """The library names an entry of a kubeconfig by its whole content, secrets included."""
    return re.sub(r"\{.*\}", "...", text, flags=re.DOTALL)


class _Overheard(logging.Handler):
    """What one thread logs in a `with` block: the library logs a failed credential program instead of raising.

    The block is of another thread than the one that is listened to, so that it ends even if that one hangs.
    """

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self._thread: int | None = None

    def listen_here(self) -> None:
        """Listen to the calling thread."""
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.messages.append(_without_entries(" ".join(record.getMessage().split())))

    def __enter__(self) -> _Overheard:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_error: object) -> None:
        logging.getLogger().removeHandler(self)
