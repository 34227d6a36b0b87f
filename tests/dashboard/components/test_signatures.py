"""The part of the page about trust, over real folders, keys and jobs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.signatures import changes_rows, command_lines, progress_text, signer_text, trust_text
from engine.weights.bundle import Signer
from engine.weights.keys import CertificateInfo, KeyPair, generate_key_pair
from engine.weights.manifest import Changes
from engine.weights.manifest_store import ManifestStore
from engine.weights.signature import sign_folder
from engine.weights.trust import SignatureMode, TrustPolicy
from engine.weights.trust_jobs import JobKind, JobProgress, TrustJobs
from tests.engine.weights.models import NOW, make_folder, quiet

# What the script under test draws; AppTest runs it in this process.
STAGE: dict[str, Any] = {}


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "release.pem", "secret")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "m")


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[TrustJobs]:
    made = TrustJobs(ManifestStore(tmp_path / "weights" / "manifests"))
    yield made
    made.close()


def script() -> None:
    import time
    from datetime import UTC

    from dashboard.components.signatures import show_signatures
    from tests.dashboard.components.test_signatures import STAGE

    show_signatures(STAGE["jobs"], STAGE["folders"], STAGE["policy"], time.time(), UTC)


def draw(jobs: TrustJobs, folders: list[Path], *public_keys: Path, mode: str = "warn") -> AppTest:
    STAGE.update(jobs=jobs, folders=folders, policy=TrustPolicy(SignatureMode(mode), public_keys))
    page = AppTest.from_function(script, default_timeout=20).run()
    assert not page.exception
    return page


def said(page: AppTest) -> str:
    kinds = (page.markdown, page.caption, page.error, page.warning, page.success, page.info)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def press(page: AppTest, jobs: TrustJobs, key: str) -> AppTest:
    page.button(key=key).click().run()
    jobs.wait(10)
    page.run()
    assert not page.exception
    return page


def test_a_folder_that_nobody_signed_or_trusted(jobs: TrustJobs, folder: Path) -> None:
    text = said(draw(jobs, [folder]))
    assert "not signed" in text
    assert "Never loaded or trusted here" in text
    assert "Before loading: warn, 0 trusted keys" in text


def test_no_folder_and_one_that_is_gone(jobs: TrustJobs, tmp_path: Path) -> None:
    assert "No model folder is known" in said(draw(jobs, []))
    assert "gone is not there" in said(draw(jobs, [tmp_path / "gone"]))


def test_trusting_then_changing_then_trusting_the_change(jobs: TrustJobs, folder: Path) -> None:
    page = press(draw(jobs, [folder], mode="off"), jobs, "trust-again")
    assert "Trusted as it is" in said(page)
    assert "4 files" in said(page)
    (folder / "config.json").write_text("{  }")
    (folder / "new.txt").touch()
    page.run()
    assert "2 files not as trusted" in said(page)
    assert page.dataframe[0].value.to_dict("records") == [
        {"File": "config.json", "What": "changed"},
        {"File": "new.txt", "What": "new"},
    ]
    page = press(page, jobs, "trust-again")
    assert "not as trusted" not in said(page)
    assert ", again just now" in said(page)


def test_signing_on_the_page_and_verifying(jobs: TrustJobs, folder: Path, keys: KeyPair) -> None:
    page = draw(jobs, [folder], keys.public_key)
    page.text_input(key="trust-sign-key").input(str(keys.private_key))
    page.text_input(key="trust-sign-password").input("secret")
    page.button(key="trust-sign-submit").click().run()
    jobs.wait(10)
    page.run()
    text = said(page)
    assert f"signed] by key `{keys.fingerprint}`" in text
    assert "Left out by name: model.sig, .git" in text
    assert page.text_input(key="trust-sign-password").value == ""
    page = press(page, jobs, "trust-verify")
    assert "The signature holds for 4 files." in said(page)
    (folder / "model.safetensors").write_bytes(b"other")
    page = press(page, jobs, "trust-verify")
    assert [error.value for error in page.error if "model.safetensors changed" in error.value]


def test_a_key_that_is_missing_or_locked(jobs: TrustJobs, folder: Path, keys: KeyPair) -> None:
    page = draw(jobs, [folder])
    page.button(key="trust-sign-submit").click().run()
    assert "Private key is empty" in said(page)
    page.text_input(key="trust-sign-key").input(str(keys.private_key))
    page.button(key="trust-sign-submit").click().run()
    jobs.wait(10)
    assert "is encrypted with a password" in said(page.run())


def test_a_signature_of_somebody_else_is_a_claim(jobs: TrustJobs, folder: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = generate_key_pair(tmp_path / "other.pem")
    sign_folder(folder, other.private_key)
    text = said(draw(jobs, [folder], keys.public_key))
    assert f"unproved] claims by key `{other.fingerprint}`" in text
    assert "which is not the trusted key" in text


def test_progress_and_cancel(jobs: TrustJobs, folder: Path) -> None:
    with (folder / "large.safetensors").open("wb") as stream:
        stream.truncate(20 << 30)
    jobs.trust(folder)
    page = draw(jobs, [folder])
    assert page.button(key="trust-verify").disabled
    page.button(key="trust-cancel").click().run()
    jobs.wait(10)
    assert "It was cancelled" in said(page.run())


def test_code_of_the_models_own_is_red_and_pickles_are_named(jobs: TrustJobs, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModel": "modeling_x.X"}}))
    (folder / "modeling_x.py").touch()
    (folder / "pytorch_model.bin").touch()
    page = draw(jobs, [folder])
    assert "runs Python code of its own" in page.error[0].value
    assert "Pickled files are not loaded" in said(page)


def test_what_cannot_be_read_is_said_and_the_rest_is_drawn(jobs: TrustJobs, folder: Path, tmp_path: Path) -> None:
    store: ManifestStore = jobs.manifests
    store.pin(folder, store.make(folder, quiet, is_full=True))
    next(store.root.glob("*.pin.json")).write_text("[")
    text = said(draw(jobs, [folder], tmp_path / "gone.pub"))
    assert "cannot be read as a pin" in text
    shutil.rmtree(store.root)
    sign_folder(folder, generate_key_pair(tmp_path / "k.pem").private_key)
    assert "gone.pub cannot be read" in said(draw(jobs, [folder], tmp_path / "gone.pub")).replace("\\", "")


def test_words() -> None:
    info = CertificateInfo("CN=Release", "CN=Root", NOW.replace(2026, 1, 2), NOW.replace(2027, 1, 2), "ab")
    assert signer_text(Signer(None)) == "by key `unknown`"
    assert signer_text(Signer("ab", info)) == (
        "by key `ab`, certificate of CN=Release issued by CN=Root, valid 2026-01-02 to 2027-01-02"
    )
    assert changes_rows(Changes(("a",), ("b",), ("c",))) == [
        {"File": "a", "What": "changed"},
        {"File": "b", "What": "missing"},
        {"File": "c", "What": "new"},
    ]
    assert progress_text(JobProgress(JobKind.SIGN, Path("/x/my_model"), "s", None, 0.0)) == r"Signing my\_model"
    assert progress_text(JobProgress(JobKind.VERIFY, Path("/m"), "s", 0.434, 0.0)) == "Verifying m, 43% of the bytes"


def test_command_lines_are_quoted() -> None:
    lines = command_lines(Path("/my models/m"), TrustPolicy(public_keys=(Path("/k.pub"),)))
    assert lines.splitlines() == [
        "python -m engine.models verify '/my models/m' --public-key /k.pub",
        "python -m engine.models sign '/my models/m' --private-key KEY.pem",
        "python -m engine.models keygen KEY.pem",
    ]


def test_when_it_was_trusted(jobs: TrustJobs, folder: Path) -> None:
    pin = jobs.manifests.pin(folder, jobs.manifests.make(folder, quiet, is_full=True))
    text = trust_text(pin, pin.trusted_at_s + 5, UTC)
    assert text.endswith(f"4 files, 7.0 kB, SHA-256 `{pin.manifest.sha256[:16]}`")
    assert "again" not in text
