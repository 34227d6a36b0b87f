from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.acquire import acquire
from engine.weights.cache import WeightsCache
from engine.weights.hub import Hub
from engine.weights.repository import RemoteFile, Repository, describe_repository, parse_repository
from engine.weights.trouble import HubError, Trouble
from tests.engine.weights.hub_models import FAST, REPO, convert, ignore, model_files
from tests.engine.weights.hub_server import Fault, HubServer, git_sha1, serve_hub, sha256

TOKEN = "hf_secretsecret"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _describe(hub: Hub, revision: str = "main") -> Repository:
    return hub.describe(REPO, revision, lambda: None)


def test_what_the_hub_lists(hub: HubServer) -> None:
    commit = hub.publish(REPO, {"config.json": b"{}", "model.safetensors": b"x" * 9})
    assert _describe(hub.door()) == Repository(
        REPO,
        commit,
        (
            RemoteFile("config.json", 2, None, git_sha1(b"{}")),
            RemoteFile("model.safetensors", 9, sha256(b"x" * 9), None),
        ),
    )


@pytest.mark.parametrize(
    ("fault", "token", "trouble", "words"),
    [
        (Fault(status=401), None, Trouble.REFUSED, r"to nobody without a token \(401\).*set HF_TOKEN"),
        (Fault(status=401), TOKEN, Trouble.REFUSED, r"does not accept the token .*\(401\).*set HF_TOKEN to a new one"),
        (
            Fault(status=401, headers={"X-Error-Code": "GatedRepo"}),
            None,
            Trouble.REFUSED,
            r"is gated \(401\): open http://127\.0\.0\.1:\d+/acme/tiny, accept .* and set HF_TOKEN",
        ),
        (Fault(status=403), TOKEN, Trouble.REFUSED, r"is gated \(403\).*accept its terms with your account$"),
        (Fault(status=404), None, Trouble.MISSING, r"has no such model: acme/tiny@main \(404\); check the spelling"),
        (
            Fault(status=404, headers={"X-Error-Code": "RevisionNotFound"}),
            None,
            Trouble.MISSING,
            r"has no such revision: acme/tiny@main \(404\)",
        ),
        (Fault(status=429), None, Trouble.BUSY, r"too many requests \(429\): wait some minutes, or set HF_TOKEN"),
        (Fault(status=503), None, Trouble.FAILING, r"is in trouble itself \(503\): try again later"),
        (Fault(status=418), None, Trouble.MALFORMED, r"answers 418 when asked for acme/tiny@main: correct HF_ENDPOINT"),
        (Fault(content=b"<!DOCTYPE html>"), None, Trouble.MALFORMED, "not the hub's: correct HF_ENDPOINT, or sign in"),
        (Fault(content=b"[]"), None, Trouble.MALFORMED, "in a way that cannot be read"),
    ],
)
def test_each_refusal_has_its_sentence(
    hub: HubServer, fault: Fault, token: str | None, trouble: Trouble, words: str
) -> None:
    hub.publish(REPO, model_files())
    hub.fail("api", fault)
    with pytest.raises(HubError, match=words) as raised:
        _describe(hub.door(token=token))
    assert raised.value.trouble is trouble
    assert TOKEN not in str(raised.value)


def test_another_commit_than_asked_is_refused(hub: HubServer) -> None:
    commit = hub.publish(REPO, model_files())
    hub.branches[REPO, COMMIT] = commit
    with pytest.raises(HubError, match="the hub answers with another one"):
        _describe(hub.door(), COMMIT)


def test_the_token_is_for_the_hub_alone(
    hub: HubServer, weights_cache: WeightsCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.token = TOKEN
    hub.publish(REPO, model_files())
    with pytest.raises(WeightsError, match="nobody without a token"):
        acquire(REPO, weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    door = Hub.from_environment({"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": f" {TOKEN}\n"})
    acquire(REPO, weights_cache, convert, ignore, hub=door, retry=FAST)
    stored = [seen for seen in hub.seen if seen.where == "storage"]
    assert len(stored) == 2
    assert not any("Authorization" in seen.headers for seen in stored)
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(door)
    assert not any(TOKEN.encode() in file.read_bytes() for file in weights_cache.root.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("environ", "offline_by"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE=1"),
        ({"TRANSFORMERS_OFFLINE": "yes"}, "TRANSFORMERS_OFFLINE=yes"),
        ({"HF_HUB_OFFLINE": "0"}, None),
        ({}, None),
    ],
)
def test_the_switch_for_offline(environ: dict[str, str], offline_by: str | None) -> None:
    assert Hub.from_environment(environ).offline_by == offline_by


def test_a_mirror_with_a_password(hub: HubServer) -> None:
    hub.publish(REPO, model_files())
    address = hub.endpoint.replace("http://", "http://me:pa55@")
    door = Hub.from_environment({"HF_ENDPOINT": f"{address}/", "HUGGING_FACE_HUB_TOKEN": TOKEN})
    assert door.endpoint == hub.endpoint
    _describe(door)
    assert hub.seen[0].headers["Authorization"].startswith("Basic ")
    hub.fail("api", Fault(status=500))
    with pytest.raises(HubError) as raised:
        _describe(door)
    assert "pa55" not in f"{raised.value}{door!r}"


@pytest.mark.parametrize("endpoint", ["nonsense", "ftp://hub", "http://u:p/w@host", "http://"])
def test_a_malformed_endpoint_is_not_shown(endpoint: str) -> None:
    with pytest.raises(WeightsError, match=r"HF_ENDPOINT is malformed \(not shown"):
        Hub.from_environment({"HF_ENDPOINT": endpoint})


@pytest.mark.parametrize("token", ["hf_\u00e9", "hf_a b", "hf_a\nb"])
def test_a_token_that_no_header_carries_is_not_shown(token: str) -> None:
    with pytest.raises(WeightsError, match="HF_TOKEN holds a character") as raised:
        Hub.from_environment({"HF_TOKEN": token})
    assert token not in str(raised.value)


def test_waiting_may_be_given_up(hub: HubServer) -> None:
    hub.publish(REPO, model_files())
    hub.fail("api", Fault(hang_s=3))

    def give_up() -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        hub.door().describe(REPO, "main", give_up)


def test_a_redirect_without_end() -> None:
    with serve_hub() as server:
        server.publish(REPO, model_files())
        for _ in range(7):
            server.fail("api", Fault(status=302, headers={"Location": f"/api/models/{REPO}/revision/main"}))
        with pytest.raises(HubError, match="redirects to nowhere"):
            _describe(server.door())


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\\b", "a\x00b", "a/./b", "x/", "\n", ".tmp-x"]
)
def test_a_name_that_leads_out_refuses_the_whole(hub: HubServer, weights_cache: WeightsCache, path: str) -> None:
    hub.publish(REPO, model_files())
    hub.extra_siblings.append({"rfilename": path, "size": 1, "blobId": "0" * 40})
    with pytest.raises(WeightsError, match=r"names the file .* which is refused: "):
        acquire(REPO, weights_cache, convert, ignore, hub=hub.door(), retry=FAST)
    assert not list(weights_cache.root.parent.rglob("*.safetensors"))


@pytest.mark.parametrize(
    "sibling",
    [
        {"rfilename": "a", "size": -1},
        {"rfilename": "a", "size": True},
        {"rfilename": "a", "lfs": {"sha256": "../../x"}},
        {"rfilename": "a", "lfs": {"sha256": 5}},
        {"rfilename": "a", "lfs": []} | {"lfs": ["x"]},
        {"rfilename": "a", "blobId": "zz"},
        {"rfilename": 5},
        {},
        None,
        {"rfilename": "config.json"},
    ],
)
def test_digests_and_sizes_are_not_believed(sibling: Any) -> None:
    siblings = [{"rfilename": "config.json"}, sibling]
    with pytest.raises(HubError, match=r"cannot be read|twice"):
        parse_repository(REPO, {"sha": COMMIT, "siblings": siblings})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["rfilename", "size", "lfs", "sha256", "blobId", "sha", "siblings"]), inner)
    ),
    max_leaves=12,
)


@given(siblings=_JSON, commit=_JSON | st.just(COMMIT))
def test_whatever_the_hub_says_is_read_or_refused(siblings: Any, commit: Any) -> None:
    for data in (siblings, {"sha": commit, "siblings": siblings}):
        with contextlib.suppress(WeightsError):
            repository = parse_repository(REPO, data)
            assert all(".." not in file.path.split("/") for file in repository.files)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]{1,8}\.json", fullmatch=True),
        st.tuples(st.integers(0, 2**60) | st.none(), st.booleans()),
        max_size=5,
    )
)
def test_what_is_remembered_reads_back(listed: dict[str, tuple[int | None, bool]]) -> None:
    files = tuple(
        RemoteFile(path, size, "ab" * 32 if is_stored else None, None if is_stored else COMMIT)
        for path, (size, is_stored) in listed.items()
    )
    repository = Repository(REPO, COMMIT, files)
    assert parse_repository(REPO, describe_repository(repository)) == repository
