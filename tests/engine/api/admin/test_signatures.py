from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from engine.console import Console
from engine.weights.keys import KeyPair, generate_key_pair
from engine.weights.signature import sign_folder
from tests.engine.api.servers import call
from tests.engine.weights.models import FILES, make_authority, make_folder
from tests.fakes import wait_until


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "release.pem", "secret")


@pytest.fixture
def folder(tmp_path: Path, keys: KeyPair) -> Path:
    """A signed one."""
    made = make_folder(tmp_path / "m")
    sign_folder(made, keys.private_key, "secret")
    return made


def _verify(app: Starlette, folder: Path, **body: Any) -> dict[str, Any]:
    """The answer once the check has ended."""
    assert call(app, "POST", "/admin/verify", json={"folder": str(folder), **body}).status_code == 202
    path = f"/admin/verify?folder={folder}"
    wait_until(lambda: call(app, "GET", path).json()["progress"] is None)
    answer: dict[str, Any] = call(app, "GET", path).json()
    return answer


def _same(**changes: list[str]) -> dict[str, list[str]]:
    return {"changed": [], "missing": [], "added": [], **changes}


def test_a_good_signature(app: Starlette, folder: Path, keys: KeyPair) -> None:
    path = f"/admin/verify?folder={folder}"
    assert call(app, "GET", path).json() == {"progress": None, "report": None, "error": None}
    answer = _verify(app, folder, public_keys=[str(keys.public_key)])
    report = answer["report"]
    assert (answer["error"], report["is_good"], report["is_authentic"], report["problems"]) == (None, True, True, [])
    assert (report["signer"], report["certificate"]) == (keys.fingerprint, None)
    assert (report["signature"], report["num_covered"]) == (str(folder / "model.sig"), len(FILES))
    assert (report["changes"], report["since_trust"]) == (_same(), None)
    assert report["size_bytes"] == sum(map(len, FILES.values()))


def test_a_file_that_was_changed_after_signing_and_trusting(
    app: Starlette, console: Console, folder: Path, keys: KeyPair
) -> None:
    assert console.trust.trust(folder)
    console.trust.wait(30)
    (folder / "model.safetensors").write_bytes(b"Weights" * 1000)
    (folder / "extra.json").write_text("{}")
    report = _verify(app, folder, public_keys=[str(keys.public_key)])["report"]
    assert (report["is_good"], report["is_authentic"], report["signer"]) == (False, True, keys.fingerprint)
    tampered = _same(changed=["model.safetensors"], added=["extra.json"])
    assert (report["changes"], report["since_trust"]) == (tampered, tampered)
    assert "is not as it was signed" in report["problems"][0]


def test_a_signature_of_somebody_else_and_none_at_all(app: Starlette, folder: Path, tmp_path: Path) -> None:
    other = generate_key_pair(tmp_path / "other.pem", "secret")
    report = _verify(app, folder, public_keys=[str(other.public_key)])["report"]
    assert (report["is_good"], report["is_authentic"]) == (False, False)
    assert "which is not the trusted key" in report["problems"][0]
    (folder / "model.sig").unlink()
    report = _verify(app, folder, public_keys=[str(other.public_key)])["report"]
    assert (report["is_good"], report["signer"]) == (False, None)


def test_a_certificate_says_whose_it_is(app: Starlette, tmp_path: Path) -> None:
    authority, folder = make_authority(tmp_path / "ca"), make_folder(tmp_path / "m")
    sign_folder(folder, authority.private_key, certificates=(authority.certificate,))
    report = _verify(app, folder, certificates=[str(authority.root)])["report"]
    assert (report["is_good"], "Release" in report["certificate"]["subject"]) == (True, True)


def test_without_keys_those_of_the_settings_count(app: Starlette, folder: Path) -> None:
    report = _verify(app, folder)["report"]
    assert (report["is_authentic"], "none of the 0 trusted keys" in report["problems"][0]) == (False, True)


def test_what_cannot_be_read_is_an_error_in_one_sentence(app: Starlette, folder: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "gone.pub") in _verify(app, folder, public_keys=[str(tmp_path / "gone.pub")])["error"]
    answer = _verify(app, tmp_path / "nowhere")
    assert (answer["report"], str(tmp_path / "nowhere") in answer["error"]) == (None, True)


def test_paths_are_absolute_and_fields_are_known(app: Starlette) -> None:
    for body in ({"folder": "m"}, {"folder": "/m", "public_keys": ["k.pub"]}):
        refused = call(app, "POST", "/admin/verify", json=body)
        assert (refused.status_code, "relative path" in refused.json()["error"]["message"]) == (400, True)
    refused = call(app, "POST", "/admin/verify", json={"folder": "/m", "key": "/k.pub"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key")
    assert call(app, "GET", "/admin/verify?folder=m").status_code == 400


def test_one_at_a_time_followed_and_cancelled(app: Starlette, folder: Path, tmp_path: Path) -> None:
    with (folder / "large.safetensors").open("wb") as stream:
        stream.truncate(64 << 30)
    path = f"/admin/verify?folder={folder}"
    assert call(app, "POST", "/admin/verify", json={"folder": str(folder)}).status_code == 202
    wait_until(lambda: bool(call(app, "GET", path).json()["progress"]["fraction"]))
    assert call(app, "GET", path).json()["progress"]["kind"] == "verify"
    assert call(app, "GET", f"/admin/verify?folder={tmp_path}").json()["progress"] is None
    assert call(app, "DELETE", "/admin/sign").status_code == 204  # another kind of job goes on
    busy = call(app, "POST", "/admin/verify", json={"folder": str(tmp_path)})
    assert (busy.status_code, busy.json()["error"]["code"]) == (409, "job_running")
    assert call(app, "DELETE", "/admin/verify").status_code == 204
    wait_until(lambda: call(app, "GET", path).json()["progress"] is None)
    answer = call(app, "GET", path).json()
    assert (answer["report"], answer["error"]) == (None, "It was cancelled; nothing was changed.")


def test_the_document_describes_it(app: Starlette) -> None:
    paths = call(app, "GET", "/admin/openapi.json").json()["paths"]["/verify"]
    assert set(paths) == {"get", "post", "delete"}
    for operation in paths.values():
        assert {"400", "401", "403", "503"} <= set(operation["responses"])
    assert "409" in paths["post"]["responses"]
