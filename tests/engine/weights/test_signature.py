from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import model_signing
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.keys import KeyPair, generate_key_pair
from engine.weights.manifest import IGNORED, Changes
from engine.weights.signature import Verification, explain, read_claims, sign_folder, signature_path, verify_folder
from engine.weights.signer import Signer
from tests.conftest import weights_cache_folder
from tests.engine.weights.models import FILES, NOW, make_authority, make_folder, quiet


class StopError(Exception):
    """What a caller raises to end the work."""


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "release.pem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "m")


@pytest.fixture
def signed(folder: Path, keys: KeyPair) -> Path:
    sign_folder(folder, keys.private_key)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the bundle as somebody without the key can."""
    table = json.loads((folder / "model.sig").read_text())
    change(table)
    (folder / "model.sig").write_text(json.dumps(table))


def test_signed_and_verified(folder: Path, keys: KeyPair) -> None:
    made = sign_folder(folder, keys.private_key)
    assert made.signature == folder / "model.sig"
    assert made.signature.stat().st_mode & 0o777 == 0o644
    assert (made.signer, made.ignored) == (Signer(keys.fingerprint), IGNORED)
    found = verify_folder(folder, (keys.public_key,))
    assert found.is_good
    assert found.signer == Signer(keys.fingerprint)
    assert found.covered == tuple(sorted(FILES))
    assert (found.changes, found.ignored, found.problems) == (Changes(), (), ())


def test_an_encrypted_key(folder: Path, tmp_path: Path) -> None:
    keys = generate_key_pair(tmp_path / "locked.pem", "secret")
    with pytest.raises(WeightsError, match="is encrypted"):
        sign_folder(folder, keys.private_key)
    assert not (folder / "model.sig").exists()
    sign_folder(folder, keys.private_key, "secret")
    assert verify_folder(folder, (keys.public_key,)).is_good


def test_the_folder_may_be_renamed_and_signed_again(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    moved = signed.rename(tmp_path / "another")
    assert verify_folder(moved, (keys.public_key,)).is_good
    (moved / "config.json").write_text("{ }")
    assert not verify_folder(moved, (keys.public_key,)).is_good
    sign_folder(moved, keys.private_key)
    assert verify_folder(moved, (keys.public_key,)).is_good


def test_one_of_several_keys(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = generate_key_pair(tmp_path / "other.pem")
    assert verify_folder(signed, (other.public_key, keys.public_key)).signer == Signer(keys.fingerprint)


def _flip(folder: Path) -> None:
    raw = bytearray((folder / "model.safetensors").read_bytes())
    raw[3500] ^= 1
    (folder / "model.safetensors").write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "changes", "words"),
    [
        (_flip, Changes(changed=("model.safetensors",)), "model.safetensors changed"),
        (lambda folder: (folder / "config.json").unlink(), Changes(missing=("config.json",)), "config.json is missing"),
        (lambda folder: (folder / "x.json").touch(), Changes(added=("x.json",)), "x.json is new"),
        (
            lambda folder: (folder / "README.md").rename(folder / "LICENSE"),
            Changes(missing=("README.md",), added=("LICENSE",)),
            "README.md is missing, LICENSE is new",
        ),
        (lambda folder: (folder / "more").mkdir(), Changes(), None),
    ],
)
def test_what_was_changed_since(
    signed: Path, keys: KeyPair, spoil: Callable[[Path], object], changes: Changes, words: str | None
) -> None:
    spoil(signed)
    found = verify_folder(signed, (keys.public_key,))
    assert found.is_authentic
    assert found.changes == changes
    assert found.is_good == (words is None)
    assert found.problems == ((f"{signed} is not as it was signed: {words}",) if words else ())
    assert set(found.covered) == set(FILES) - {*changes.changed, *changes.missing}
    if words:
        assert words in str(explain(found))


def _swap_digest(table: dict[str, Any]) -> None:
    payload = json.loads(base64.b64decode(table["dsseEnvelope"]["payload"]))
    payload["predicate"]["resources"][0]["digest"] = "0" * 64
    table["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_swap_digest, "it does not hold: the bundle was changed, or another key made it"),
        (lambda table: table["dsseEnvelope"].update(payloadType="text/plain"), "is no statement about a model"),
        (lambda table: table["dsseEnvelope"].update(signatures=[]), "it holds no signed statement"),
        (lambda table: table.update(mediaType="x"), "is not an OpenSSF signature bundle"),
        (lambda table: table.pop("verificationMaterial"), "is not an OpenSSF signature bundle"),
        (lambda table: table.pop("dsseEnvelope"), "is not an OpenSSF signature bundle"),
        (
            lambda table: table["verificationMaterial"]["publicKey"].update(hint="0" * 64),
            "it was made with key 0000000000000000..., which is not the trusted key",
        ),
    ],
)
def test_a_bundle_that_was_changed(
    signed: Path, keys: KeyPair, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    edit(signed, change)
    found = verify_folder(signed, (keys.public_key,))
    assert not found.is_authentic
    assert words in found.problems[0]
    assert str(signed / "model.sig") in found.problems[0]


def test_a_bundle_that_does_not_say_whose_it_is(
    signed: Path, keys: KeyPair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(signed, lambda table: table["verificationMaterial"].update(publicKey={}))
    other = generate_key_pair(tmp_path / "other.pem")
    assert verify_folder(signed, (other.public_key, keys.public_key)).signer == Signer(keys.fingerprint)
    assert "does not hold" in verify_folder(signed, (other.public_key,)).problems[0]
    assert capsys.readouterr().out == ""


def test_another_key(signed: Path, keys: KeyPair, tmp_path: Path) -> None:
    other = generate_key_pair(tmp_path / "other.pem")
    found = verify_folder(signed, (other.public_key,))
    assert not found.is_authentic
    assert found.signer == Signer(keys.fingerprint)
    assert f"key {keys.fingerprint[:16]}..., which is not the trusted key" in found.problems[0]
    assert "none of the 0 trusted keys" in verify_folder(signed).problems[0]


def test_no_signature_and_no_folder(folder: Path, keys: KeyPair, tmp_path: Path) -> None:
    found = verify_folder(folder, (keys.public_key,))
    assert found == Verification(
        folder / "model.sig", problems=(f"{folder / 'model.sig'} proves nothing: there is no signature",)
    )
    assert read_claims(folder) is None
    with pytest.raises(WeightsError, match="gone is not there"):
        verify_folder(tmp_path / "gone", (keys.public_key,))
    sign_folder(folder, keys.private_key)
    with pytest.raises(WeightsError, match=r"nokey\.pub cannot be read"):
        verify_folder(folder, (tmp_path / "nokey.pub",))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(raw=st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_problem(folder: Path, keys: KeyPair, raw: bytes) -> None:
    (folder / "model.sig").write_bytes(raw)
    assert not verify_folder(folder, (keys.public_key,)).is_good


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_no_changed_value_in_the_bundle_does_worse_than_a_problem(
    tmp_path: Path, keys: KeyPair, data: st.DataObject
) -> None:
    folder = tmp_path / "fuzz"
    if not folder.exists():
        make_folder(folder)
        sign_folder(folder, keys.private_key)
        shutil.copy(folder / "model.sig", tmp_path / "good.sig")
    table = json.loads((tmp_path / "good.sig").read_text())
    place: Any = table
    while True:
        name = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not place[name] or not isinstance(place[name], dict | list) or data.draw(st.booleans()):
            break
        place = place[name]
    was = place[name]
    place[name] = data.draw(st.none() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({}) | st.just([{}]))
    (folder / "model.sig").write_text(json.dumps(table))
    found = verify_folder(folder, (keys.public_key,))
    if found.is_good:  # only what proves nothing may change: the hint left out, the log of a service never asked
        assert name in ("hint", "publicKey", "tlogEntries", "keyid"), (name, was, place[name])


def test_the_library_verifies_ours_and_we_the_librarys(folder: Path, keys: KeyPair) -> None:
    sign_folder(folder, keys.private_key)
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public_key)
    verifier.verify(folder, folder / "model.sig")
    (folder / "model.sig").unlink()
    hashing = model_signing.hashing.Config().set_ignored_paths(paths=["model.sig"])
    signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private_key)
    signer.set_hashing_config(hashing).sign(folder, folder / "model.sig")
    assert verify_folder(folder, (keys.public_key,)).is_good
    _flip(folder)
    assert verify_folder(folder, (keys.public_key,)).changes == Changes(changed=("model.safetensors",))


def test_what_the_librarys_signatures_may_not_leave_out(folder: Path, keys: KeyPair) -> None:
    for left_out, words in ((["README.md", "model.sig"], None), (["config.json", "model.sig"], "config.json")):
        (folder / "model.sig").unlink(missing_ok=True)
        hashing = model_signing.hashing.Config().set_ignored_paths(paths=left_out)
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private_key)
        signer.set_hashing_config(hashing).sign(folder, folder / "model.sig")
        found = verify_folder(folder, (keys.public_key,))
        assert found.ignored == (left_out[0],)
        assert found.is_good == (words is None)
        if words:
            assert found.problems[0].endswith(f"files that are loaded and that the signature leaves out: {words}")


def test_signatures_over_parts_of_files_are_refused_with_the_reason(folder: Path, keys: KeyPair) -> None:
    for hashing in (
        model_signing.hashing.Config().use_shard_serialization(),
        model_signing.hashing.Config().use_file_serialization(hashing_algorithm="blake2"),
    ):
        signer = model_signing.signing.Config().use_elliptic_key_signer(private_key=keys.private_key)
        signer.set_hashing_config(hashing).sign(folder, folder / "model.sig")
        assert "have it signed file by file" in verify_folder(folder, (keys.public_key,)).problems[0]
        (folder / "model.sig").unlink()


def test_a_certificate(folder: Path, tmp_path: Path, keys: KeyPair) -> None:
    authority = make_authority(tmp_path / "ca")
    made = sign_folder(folder, authority.private_key, certificates=(authority.certificate,))
    found = verify_folder(folder, certificates=(authority.root,))
    assert found.problems == ()
    assert found.is_good
    assert found.signer == made.signer
    assert found.signer is not None
    assert found.signer.certificate is not None
    assert (found.signer.certificate.subject, found.signer.certificate.issuer) == ("CN=Release", "CN=Root")
    assert "name the root certificate" in verify_folder(folder, (keys.public_key,)).problems[0]
    stranger = make_authority(tmp_path / "ca2")
    assert "does not go back to one that is trusted" in verify_folder(folder, certificates=(stranger.root,)).problems[0]
    with pytest.raises(WeightsError, match="is not that of the private key"):
        sign_folder(folder, keys.private_key, certificates=(authority.certificate,))
    _flip(folder)
    assert verify_folder(folder, certificates=(authority.root,)).changes.changed == ("model.safetensors",)


def test_a_certificate_that_ran_out_or_may_not_sign(folder: Path, tmp_path: Path) -> None:
    old = make_authority(tmp_path / "old", NOW - timedelta(days=2))
    sign_folder(folder, old.private_key, certificates=(old.certificate,))
    found = verify_folder(folder, certificates=(old.root,))
    assert not found.is_authentic
    assert f"to {NOW - timedelta(days=2):%Y-%m-%d}, not now" in found.problems[0]
    assert found.signer is not None
    assert verify_folder(folder, certificates=(old.root,), now=NOW - timedelta(days=3)).is_good
    other = make_authority(tmp_path / "other", may_sign=False)
    sign_folder(folder, other.private_key, certificates=(other.certificate,))
    assert "is not one for signing" in verify_folder(folder, certificates=(other.root,)).problems[0]


def test_a_single_file(tmp_path: Path, keys: KeyPair) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF" * 100)
    assert sign_folder(file, keys.private_key).signature == signature_path(file) == tmp_path / "m.gguf.sig"
    assert verify_folder(file, (keys.public_key,)).is_good
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=keys.public_key).verify(
        file, tmp_path / "m.gguf.sig"
    )
    file.write_bytes(b"GGUF" * 99)
    assert not verify_folder(file, (keys.public_key,)).is_good


def test_signing_can_be_stopped_and_leaves_nothing(folder: Path, keys: KeyPair) -> None:
    def stop(_stage: str, _fraction: float | None) -> None:
        raise StopError

    with pytest.raises(StopError):
        sign_folder(folder, keys.private_key, on_progress=stop)
    assert sorted(path.name for path in folder.iterdir()) == sorted({name.split("/")[0] for name in FILES})
    sign_folder(folder, keys.private_key)
    with pytest.raises(StopError):
        verify_folder(folder, (keys.public_key,), on_progress=stop)


@pytest.mark.slow
@pytest.mark.model
def test_the_sample_is_signed_and_one_bit_is_noticed(sample_loaded: object, tmp_path: Path, keys: KeyPair) -> None:
    converted = next(path for path in weights_cache_folder().rglob("model.safetensors") if path.stat().st_size > 2**27)
    folder = Path(shutil.copytree(converted.parent, tmp_path / "sample", ignore=shutil.ignore_patterns("model.sig")))
    reports: list[float] = []
    sign_folder(folder, keys.private_key, on_progress=lambda _stage, fraction: reports.append(fraction or 0.0))
    assert len(reports) > 2
    assert verify_folder(folder, (keys.public_key,), on_progress=quiet).is_good
    with (folder / "model.safetensors").open("r+b") as stream:
        stream.seek(2**27)
        byte = stream.read(1)
        stream.seek(2**27)
        stream.write(bytes([byte[0] ^ 1]))
    assert verify_folder(folder, (keys.public_key,)).changes == Changes(changed=("model.safetensors",))
