"""Which cluster: $KUBECONFIG, ~/.kube/config, or the service account of the pod that this process runs in.

The files are read here before the client library sees them, because its own messages name neither line nor remedy.
Merging follows kubectl: of several files in $KUBECONFIG the first that sets a name or the current context wins.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.deploy.kubernetes.errors import ClusterConfigError, NoContextError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
IN_CLUSTER = "in-cluster"
_HOW_TO_CONFIGURE = "Copy the cluster's kubeconfig to ~/.kube/config, or name it in $KUBECONFIG."


@dataclass(frozen=True)
class Connection:
    """A cluster to talk to. `kubeconfig` holds the files as $KUBECONFIG does; None means the pod's service account.

    `credential_command` is the program that the user's credentials come from, if they come from one.
    """

    context: str
    kubeconfig: str | None = None
    credential_command: str | None = None


def find_connection(
    environment: Mapping[str, str] | None = None, home: Path | None = None, service_account: Path = SERVICE_ACCOUNT
) -> Connection:
    """The cluster that kubectl would talk to; nothing is sent to it yet.

    Raises:
        NoContextError: none is configured.
        ClusterConfigError: a kubeconfig cannot be used: which file, why, and the remedy.
    """
    environment = os.environ if environment is None else environment
    default = (home or Path.home()) / ".kube" / "config"
    if named := environment.get("KUBECONFIG"):
        return _choose(named, _read_named(named))
    no_context = NoContextError("no Kubernetes context is configured here", _HOW_TO_CONFIGURE)
    if _is_there(default):
        document = _read(default)
        if document.get("contexts"):
            return _choose(str(default), [(default, document)])
        no_context = NoContextError(f"{default} holds no context", _HOW_TO_CONFIGURE)
    if environment.get("KUBERNETES_SERVICE_HOST") and _is_there(service_account / "token"):
        return Connection(IN_CLUSTER)
    raise no_context


def _read_named(named: str) -> list[tuple[Path, dict[str, Any]]]:
    files = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    documents = [(file, _read(file)) for file in files if _is_there(file)]
    if not documents:
        raise ClusterConfigError(
            f"$KUBECONFIG names {named}, which does not exist",
            "Point KUBECONFIG at a kubeconfig that exists, or unset it to use ~/.kube/config.",
        )
    return documents


def _is_there(file: Path) -> bool:
    """Also of a file in a folder that this user may not look into: reading it then says so."""
    try:
        file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read(file: Path) -> dict[str, Any]:
    """One kubeconfig; an empty file is an empty mapping, as kubectl sees it."""
    import yaml

    renew = f"Restore {file}, or fetch it anew from whoever runs the cluster."
    try:
        document = yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise ClusterConfigError(f"{file} cannot be read: {error.strerror}", _make_readable(file)) from error
    except UnicodeDecodeError as error:
        raise ClusterConfigError(f"{file} is not UTF-8 text", renew) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ClusterConfigError(
            f"{file} is not valid YAML{where}: {problem}", f"Correct{where} or: {renew}"
        ) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ClusterConfigError(f"{file} is not a kubeconfig: it holds no mapping", renew)
    return document


def _make_readable(file: Path) -> str:
    return f"Make it readable for this user: chmod u+r {file}, or sudo chown $USER {file}."


def _choose(kubeconfig: str, documents: list[tuple[Path, dict[str, Any]]]) -> Connection:
    """The current context, checked as far as that can be done without a request."""
    contexts = _merge(documents, "contexts", "context")
    if not contexts:
        raise NoContextError(f"{kubeconfig} holds no context", _HOW_TO_CONFIGURE)
    switch = f"Choose one of {', '.join(contexts)}: kubectl config use-context {next(iter(contexts))}"
    current = next(
        (str(document["current-context"]) for _, document in documents if document.get("current-context")), None
    )
    if current is None:
        raise ClusterConfigError(f"{kubeconfig} sets no current context", switch)
    if current not in contexts:
        raise ClusterConfigError(f"{kubeconfig} has no context {current!r}, its current one", switch)
    _, context = contexts[current]
    _check_cluster(kubeconfig, current, _merge(documents, "clusters", "cluster").get(str(context.get("cluster"))))
    command = _check_user(kubeconfig, current, context, _merge(documents, "users", "user"))
    return Connection(current, kubeconfig, command)


def _merge(
    documents: list[tuple[Path, dict[str, Any]]], plural: str, singular: str
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The entries of one list by name, each with the file it stands in; the first of a name wins."""
    found: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file, document in documents:
        entries = document.get(plural) or []
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
            remedy = f"Correct {plural} in {file}: each entry wants a name and a {singular}."
            raise ClusterConfigError(f"{file}: {plural} is not a list of named entries", remedy)
        for entry in entries:
            value = entry.get(singular)
            found.setdefault(str(entry["name"]), (file, value if isinstance(value, dict) else {}))
    return found


def _check_cluster(kubeconfig: str, current: str, found: tuple[Path, dict[str, Any]] | None) -> None:
    file, cluster = found or (Path(kubeconfig), {})
    if not isinstance(cluster.get("server"), str):
        remedy = "Set it: kubectl config set-cluster NAME --server=https://HOST:6443"
        raise ClusterConfigError(f"{kubeconfig}: the cluster of context {current!r} has no server", remedy)
    _check_files(file, cluster, ("certificate-authority",))


def _check_user(
    kubeconfig: str, current: str, context: dict[str, Any], users: dict[str, tuple[Path, dict[str, Any]]]
) -> str | None:
    """The program that gives the credentials, if one does."""
    name = context.get("user")
    if name is None:
        return None
    if str(name) not in users:
        remedy = f"Set it: kubectl config set-credentials {name} --token=TOKEN"
        raise ClusterConfigError(f"{kubeconfig} has no user {name!r}, whom context {current!r} names", remedy)
    file, user = users[str(name)]
    _check_files(file, user, ("client-certificate", "client-key", "tokenFile"))
    plugin = user.get("exec")
    command = plugin.get("command") if isinstance(plugin, dict) else None
    if command is None:
        return None
    command = str(command)
    if shutil.which(str((file.parent / command).absolute()) if os.sep in command else command) is None:
        hint = str(plugin.get("installHint") or "").strip() if isinstance(plugin, dict) else ""
        remedy = hint or f"Install {command} and put it on the PATH of this process."
        raise ClusterConfigError(f"{file}: the credential program {command} of context {current!r} is missing", remedy)
    return command


def _check_files(file: Path, entry: dict[str, Any], keys: tuple[str, ...]) -> None:
    for key in keys:
        if not (value := entry.get(key)) or f"{key}-data" in entry:
            continue
        named = file.parent / str(value)
        if not _is_there(named):
            remedy = f"Restore {named}, or correct {key} in {file}."
            raise ClusterConfigError(f"{file}: {key} names {value}, which does not exist", remedy)
        if not os.access(named, os.R_OK):
            raise ClusterConfigError(f"{file}: {key} names {value}, which cannot be read", _make_readable(named))
