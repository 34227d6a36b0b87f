from __future__ import annotations

import pytest

from engine.environment.python import registry as registry_module
from engine.environment.python.registry import Newest, Registry, Releases, parse_releases
from tests.engine.environment.python.conftest import LocalIndex

REGISTRY = Registry()
TIMEOUT_S = 30


def test_releases_come_from_the_index_newest_first(index: LocalIndex) -> None:
    for version in ("1.0", "2.0", "2.1rc1"):
        index.add("thing-a", version)
    assert REGISTRY.read_releases("thing-a", TIMEOUT_S) == Releases(("2.1rc1", "2.0", "1.0"))


def test_a_name_that_the_index_does_not_know_has_no_releases_and_no_problem(index: LocalIndex) -> None:
    assert REGISTRY.read_releases("thing-a", TIMEOUT_S) == Releases()


def test_the_newest_release_tells_what_it_asks_for(index: LocalIndex) -> None:
    index.add("thing-a", "1.0")
    index.add("thing-a", "1.1", ("thing-b>=2; python_version >= '3'",))
    found = REGISTRY.read_newest("thing-a", TIMEOUT_S).distribution
    assert found is not None
    assert (found.name, found.version, found.requires[0].name) == ("thing-a", "1.1", "thing-b")
    assert REGISTRY.read_newest("thing-b", TIMEOUT_S) == Newest()


def test_an_index_that_does_not_answer_is_a_problem(pip_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    releases = REGISTRY.read_releases("thing-a", TIMEOUT_S)
    assert releases.versions == ()
    assert (releases.problem or "").startswith("an index did not answer: ")
    assert "refused" in (releases.problem or "")
    assert "0x" not in (releases.problem or "")
    assert "refused" in (REGISTRY.read_newest("thing-a", TIMEOUT_S).problem or "")


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        ("NewConnectionError('<pip._vendor.Https object at 0x7f81>: [Errno 111] Refused')", "[Errno 111] Refused"),
        ("""NameResolutionError("<a.B object at 0x7f>: Failed to resolve 'a.b'")""", "Failed to resolve 'a.b'"),
        ("ConnectTimeoutError(<a.B object at 0x7f>, 'timed out. (timeout=5)')", "timed out. (timeout=5)"),
        ("SSLError(SSLCertVerificationError(1, '[SSL] self-signed (_ssl.c:1006)'))", "[SSL] self-signed (_ssl.c:1006)"),
        ("something else", "something else"),
    ],
)
def test_the_cause_is_told_without_its_python(cause: str, told: str) -> None:
    output = f"Could not fetch URL http://a/simple/: connection error: Pool(host='a'): (Caused by {cause}) - skipping"
    assert parse_releases(output).problem == f"an index did not answer: {told}"


def test_one_of_two_indexes_that_does_not_answer_leaves_the_answer_open(
    index: LocalIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("thing-a", "1.0")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://127.0.0.1:9/simple")
    releases = REGISTRY.read_releases("thing-a", TIMEOUT_S)
    assert releases.versions == ("1.0",)
    assert "refused" in (releases.problem or "")


def test_pip_without_an_index_or_without_time_tells_so(pip_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert REGISTRY.read_releases("thing-a", TIMEOUT_S) == Releases(problem="pip is set to use no index")
    assert REGISTRY.read_releases("thing-a", 0.01) == Releases(problem="no answer within 0 s")
    assert REGISTRY.read_newest("thing-a", 0) == Newest(problem="the time for all questions was used up")


def test_no_pip_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_releases("/x/python: No module named pip\n").problem == "pip is not installed in this environment"
    assert parse_releases("ERROR: unknown command 'index'\n").problem == "ERROR: unknown command 'index'"
    monkeypatch.setattr(registry_module, "_PIP", ("/no/such/python",))
    assert REGISTRY.read_newest("a", 5).problem == "/no/such/python does not start: No such file or directory"
