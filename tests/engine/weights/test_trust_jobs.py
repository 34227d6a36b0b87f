from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.weights.keys import KeyPair, generate_key_pair
from engine.weights.manifest import Changes
from engine.weights.manifest_store import ManifestStore, Pin
from engine.weights.signature import SignedModel
from engine.weights.trust import SignatureMode, TrustPolicy
from engine.weights.trust_jobs import JobKind, TrustJobs, Verified
from tests.engine.weights.models import FILES, make_folder, quiet
from tests.fakes import wait_until


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[TrustJobs]:
    made = TrustJobs(ManifestStore(tmp_path / "weights" / "manifests"))
    yield made
    made.close()


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "release.pem", "secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "m")


@pytest.fixture
def large(folder: Path) -> Path:
    """A folder that takes a while."""
    with (folder / "large.safetensors").open("wb") as stream:
        stream.truncate(8 << 30)
    return folder


def test_sign_trust_verify(jobs: TrustJobs, folder: Path, keys: KeyPair) -> None:
    policy = TrustPolicy(SignatureMode.WARN, (keys.public_key,))
    assert jobs.outcome(folder) is None
    assert jobs.sign(folder, keys.private_key, "secret")
    jobs.wait(10)
    signed = jobs.outcome(folder)
    assert signed is not None
    assert (signed.kind, signed.error) == (JobKind.SIGN, None)
    assert isinstance(signed.result, SignedModel)
    assert jobs.trust(folder)
    jobs.wait(10)
    assert isinstance(jobs.outcome(folder).result, Pin)  # type: ignore[union-attr]
    (folder / "README.md").unlink()
    assert jobs.verify(folder, policy)
    jobs.wait(10)
    verified = jobs.outcome(folder).result  # type: ignore[union-attr]
    assert isinstance(verified, Verified)
    assert verified.since_trust == verified.verification.changes == Changes(missing=("README.md",))
    assert verified.size_bytes == sum(len(content) for name, content in FILES.items() if name != "README.md")


def test_what_was_never_trusted_is_not_pinned_by_looking(jobs: TrustJobs, folder: Path) -> None:
    jobs.verify(folder, TrustPolicy())
    jobs.wait(10)
    verified = jobs.outcome(folder).result  # type: ignore[union-attr]
    assert isinstance(verified, Verified)
    assert verified.since_trust is None
    assert jobs.manifests.pinned(folder) is None


def test_one_at_a_time_with_progress_and_cancelled(jobs: TrustJobs, large: Path) -> None:
    assert jobs.trust(large)
    wait_until(lambda: (found := jobs.progress()) is not None and bool(found.fraction))
    progress = jobs.progress()
    assert progress is not None
    assert (progress.kind, progress.folder) == (JobKind.TRUST, large)
    assert not jobs.verify(large, TrustPolicy())
    jobs.cancel()
    jobs.wait(10)
    assert jobs.progress() is None
    outcome = jobs.outcome(large)
    assert outcome is not None
    assert (outcome.kind, outcome.error) == (JobKind.TRUST, "It was cancelled; nothing was changed.")
    assert jobs.manifests.pinned(large) is None
    (large / "large.safetensors").unlink()
    assert jobs.trust(large)


def test_a_refusal_is_the_outcome_and_no_secret_is_in_it(
    jobs: TrustJobs, folder: Path, keys: KeyPair, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        jobs.sign(folder, keys.private_key, "hunter2")
        jobs.wait(10)
    outcome = jobs.outcome(folder)
    assert outcome is not None
    assert "the password is wrong" in str(outcome.error)
    assert "hunter2" not in repr(outcome) + caplog.text


def test_a_bug_is_logged_and_told(
    jobs: TrustJobs, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("engine.weights.trust_jobs.trust_again", lambda *_: 1 / 0)
    jobs.trust(folder)
    jobs.wait(10)
    sentence = f"the job trust on {folder} failed: ZeroDivisionError: division by zero"
    assert jobs.outcome(folder).error == sentence  # type: ignore[union-attr]
    assert "the job trust on" in caplog.text
    assert jobs.progress() is None


def test_no_thread_is_no_end(jobs: TrustJobs, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            jobs.trust(folder)
    assert jobs.trust(folder)
    jobs.wait(10)
    assert jobs.manifests.pinned(folder) is not None


def test_closing_ends_what_runs(large: Path, tmp_path: Path) -> None:
    jobs = TrustJobs(ManifestStore(tmp_path / "manifests"))
    jobs.trust(large)
    jobs.close()
    assert jobs.progress() is None
    assert not [thread for thread in threading.enumerate() if thread.name in ("trust-job", "hash")]
    quiet("", None)
