"""Why a request failed, with the remedy."""

from __future__ import annotations

import json
import re

from engine.deploy.kubernetes.errors import ClusterRequestError
from engine.deploy.kubernetes.kubeconfig import Connection


def explain_silence(
    connection: Connection, server: str, error: Exception, timeouts_s: tuple[float, float]
) -> ClusterRequestError:
    """Why there was no answer; `timeouts_s` are those to connect and to read. The classes of `error` are urllib3's, but
    a TLS failure comes as the client library's own, of status 0.
    """
    from urllib3 import exceptions

    connect_s, read_s = timeouts_s
    other = f"or switch to another cluster: kubectl config use-context NAME (now {connection.context})"
    text = str(getattr(error, "reason", None) or error)
    if isinstance(error, exceptions.NameResolutionError):
        return ClusterRequestError(
            f"the name in {server} cannot be resolved", f"Connect to its network or VPN, {other}."
        )
    if isinstance(error, exceptions.NewConnectionError) and "refused" not in text:
        message = f"{server} cannot be reached: {_last_words(text)}"
        return ClusterRequestError(message, f"Connect to its network or VPN, {other}.")
    if isinstance(error, exceptions.NewConnectionError):
        message = f"nothing listens at {server}: {_last_words(text)}"
        return ClusterRequestError(message, f"Start the cluster's API server, {other}.")
    if isinstance(error, exceptions.ReadTimeoutError):
        message = f"{server} took the request and did not answer within {read_s:g} s"
        return ClusterRequestError(message, f"Look at the API server's load and at its etcd, {other}.")
    if isinstance(error, exceptions.TimeoutError):
        message = f"{server} did not take a connection within {connect_s:g} s"
        return ClusterRequestError(message, f"Connect to its network or VPN, check the firewall, {other}.")
    if "SSL" in text or "certificate" in text.lower():
        return ClusterRequestError(
            f"the TLS connection to {server} failed: {_last_words(text)}",
            "Fetch the kubeconfig anew: its certificate authority or the client certificate is not this cluster's.",
        )
    return ClusterRequestError(f"{server} cannot be asked: {_last_words(text)}", f"Check the network to it, {other}.")


def explain_refusal(connection: Connection, server: str, status: int, data: bytes) -> ClusterRequestError:
    """What the server's `status` means for this user, with the sentence that came with it."""
    message = _message(data)
    if status == 401:
        source = f"from {connection.credential_command}" if connection.credential_command else "in the kubeconfig"
        if connection.kubeconfig is None:
            source = "of the pod's service account"
        return ClusterRequestError(
            f"{server} does not accept the credentials {source} (context {connection.context})",
            "Sign in to the cluster again, or fetch a new kubeconfig: the token or certificate has expired or is not "
            "this cluster's.",
            status,
        )
    if status == 403:
        return ClusterRequestError(
            f"{server} forbids it: {message}", "Have an administrator of the cluster grant it.", status
        )
    return ClusterRequestError(f"{server} answered {status}: {message}", "Look at the API server's log.", status)


def _message(data: bytes) -> str:
    """The sentence in a Status object, or the beginning of whatever came."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode("utf-8", "replace").strip() or "no text"


def _last_words(text: str) -> str:
    """Without the address of a Python object that urllib3's messages begin with, and OpenSSL's line of C."""
    line = re.sub(r" \(_ssl\.c:\d+\)", "", ": ".join(text.split("\n")))
    return line.rsplit("): ", 1)[-1].strip().rstrip(".:")
