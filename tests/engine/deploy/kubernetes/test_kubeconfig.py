"""Which cluster a machine is set up for."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.deploy.kubernetes import ClusterConfigError, NoContextError, find_connection
from tests.unprivileged import open_folder, run_as_nobody

GOOD = """
current-context: one
contexts:
- name: one
  context: {cluster: c, user: u}
- name: two
  context: {cluster: c}
clusters:
- name: c
  cluster: {server: "https://127.0.0.1:1"}
users:
- name: u
  user: {token: t}
"""


def write(folder: Path, text: str, name: str = "kubeconfig") -> dict[str, str]:
    """The environment that names a kubeconfig of this text."""
    (folder / name).write_text(text)
    return {"KUBECONFIG": str(folder / name)}


def test_nothing_configured(tmp_path: Path) -> None:
    with pytest.raises(NoContextError, match="no Kubernetes context is configured here") as caught:
        find_connection({}, tmp_path)
    assert "KUBECONFIG" in caught.value.remedy


def test_without_a_context_the_client_library_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys, engine.deploy.kubernetes as k\n"
        "try: k.find_connection()\n"
        "except k.NoContextError: print(sorted({'kubernetes', 'yaml'} & set(sys.modules)))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
    environment["HOME"] = str(tmp_path)
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.stdout.strip() == "[]", ended.stderr


def test_environment_before_home_before_pod(tmp_path: Path) -> None:
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t")
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    assert find_connection(pod, tmp_path, account).context == "in-cluster"
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(GOOD)
    assert find_connection(pod, tmp_path, account).kubeconfig == str(tmp_path / ".kube" / "config")
    named = write(tmp_path, GOOD.replace("current-context: one", "current-context: two"))
    assert find_connection(pod | named, tmp_path, account).context == "two"


def test_a_pod_without_a_mounted_token_has_no_context(tmp_path: Path) -> None:
    with pytest.raises(NoContextError):
        find_connection({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path, tmp_path / "account")


@pytest.mark.parametrize("text", ["", "contexts: []", "apiVersion: v1\nkind: Config\ncontexts: null\n"])
def test_an_empty_kubeconfig_is_no_context(text: str, tmp_path: Path) -> None:
    with pytest.raises(NoContextError, match="holds no context"):
        find_connection(write(tmp_path, text), tmp_path)


def test_the_first_of_several_files_wins_as_in_kubectl(tmp_path: Path) -> None:
    first = write(tmp_path, "current-context: two\n", "first")["KUBECONFIG"]
    second = write(tmp_path, GOOD, "second")["KUBECONFIG"]
    missing = str(tmp_path / "missing")
    found = find_connection({"KUBECONFIG": os.pathsep.join((missing, first, second))}, tmp_path)
    assert found.context == "two"


def test_the_first_entry_of_a_name_wins_as_in_kubectl(tmp_path: Path) -> None:
    first = write(tmp_path, GOOD, "first")["KUBECONFIG"]
    second = write(tmp_path, GOOD.replace("{token: t}", "{exec: {command: sh}}"), "second")["KUBECONFIG"]
    assert find_connection({"KUBECONFIG": f"{first}{os.pathsep}{second}"}, tmp_path).credential_command is None
    assert find_connection({"KUBECONFIG": f"{second}{os.pathsep}{first}"}, tmp_path).credential_command == "sh"


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("contexts: [\n", "not valid YAML at line 2", "Correct at line 2"),
        ("just words", "is not a kubeconfig", "fetch it anew"),
        ("\x00", "not valid YAML", "fetch it anew"),
        (GOOD.replace("current-context: one", ""), "sets no current context", "use-context one"),
        (
            GOOD.replace("current-context: one", "current-context: three"),
            "no context 'three'",
            "Choose one of one, two",
        ),
        (GOOD.replace("- name: c\n", "- name: d\n"), "context 'one' has no server", "kubectl config set-cluster"),
        (GOOD.replace("server:", "surfer:"), "context 'one' has no server", "kubectl config set-cluster"),
        (GOOD.replace("- name: u\n", "- name: v\n"), "has no user 'u'", "kubectl config set-credentials u"),
        (
            GOOD.replace("clusters:\n- name: c", "clusters:\n- nome: c"),
            "clusters is not a list of named",
            "Correct clusters",
        ),
        (GOOD.replace("{token: t}", "{client-certificate: gone.crt}"), "names gone.crt, which does not", "gone.crt"),
        (
            GOOD.replace("{token: t}", "{exec: {command: no-such-program}}"),
            "credential program no-such-program of context 'one' is missing",
            "Install no-such-program",
        ),
        (
            GOOD.replace("{token: t}", "{exec: {command: no-such-program, installHint: Ask the platform team.}}"),
            "is missing",
            "Ask the platform team.",
        ),
    ],
)
def test_a_broken_kubeconfig_is_told_with_its_remedy(text: str, message: str, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigError, match=re.escape(message)) as caught:
        find_connection(write(tmp_path, text), tmp_path)
    assert remedy in caught.value.remedy
    assert str(tmp_path) in f"{caught.value} {caught.value.remedy}"


def test_a_named_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigError, match="which does not exist") as caught:
        find_connection({"KUBECONFIG": str(tmp_path / "gone")}, tmp_path)
    assert "unset it" in caught.value.remedy


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ClusterConfigError, match="cannot be read: Is a directory"):
        find_connection({"KUBECONFIG": str(tmp_path)}, tmp_path)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ClusterConfigError, match="is not UTF-8 text"):
        find_connection({"KUBECONFIG": str(tmp_path / "binary")}, tmp_path)


def test_a_credential_program_beside_the_kubeconfig(tmp_path: Path) -> None:
    program = tmp_path / "login"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = find_connection(write(tmp_path, GOOD.replace("{token: t}", "{exec: {command: ./login}}")), tmp_path)
    assert found.credential_command == "./login"


def test_a_credential_program_beside_a_kubeconfig_of_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_a_credential_program_beside_the_kubeconfig(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_connection({"KUBECONFIG": "kubeconfig"}, tmp_path).credential_command == "./login"


@pytest.mark.parametrize("variables", [{"KUBECONFIG": "{}/root/.kube/config"}, {"HOME": "{}/root"}])
def test_another_users_kubeconfig_says_how_to_make_it_readable(variables: dict[str, str]) -> None:
    with open_folder() as folder:
        file = folder / "root/.kube/config"
        file.parent.mkdir(parents=True)
        file.write_text(GOOD)
        (folder / "root").chmod(0o700)
        environment = {"KUBECONFIG": "", **{name: value.format(folder) for name, value in variables.items()}}
        found = run_as_nobody(_IMPORTS, _FIND, **environment)
    assert f"{file} cannot be read: Permission denied" in found
    assert f"Make it readable for this user: chmod u+r {file}" in found


def test_another_users_certificate_says_how_to_make_it_readable() -> None:
    with open_folder() as folder:
        (folder / "kubeconfig").write_text(GOOD.replace("{token: t}", "{client-certificate: cert, client-key: cert}"))
        (folder / "cert").write_text("")
        (folder / "cert").chmod(0o600)
        found = run_as_nobody(_IMPORTS, _FIND, KUBECONFIG=str(folder / "kubeconfig"))
    assert "client-certificate names cert, which cannot be read" in found
    assert f"chmod u+r {folder / 'cert'}" in found


_IMPORTS = """
import yaml
from engine.deploy.kubernetes import ClusterConfigError, find_connection
"""
_FIND = """
try:
    find_connection()
except ClusterConfigError as error:
    print(error, error.remedy)
"""
