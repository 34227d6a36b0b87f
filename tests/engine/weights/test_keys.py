from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.keys import (
    PASSWORD_VARIABLE,
    describe,
    find_password,
    fingerprint_of,
    generate_key_pair,
    load_certificates,
    load_private_key,
    load_public_key,
)
from tests.engine.weights.models import NOW, make_authority

_PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
_PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("password", [None, "pässword"])
def test_a_new_pair_belongs_together(tmp_path: Path, password: str | None) -> None:
    pair = generate_key_pair(tmp_path / "models.pem", password)
    assert pair.public_key == tmp_path / "models.pub"
    assert pair.private_key.stat().st_mode & 0o777 == 0o600
    assert pair.public_key.stat().st_mode & 0o777 == 0o644
    private, public = load_private_key(pair.private_key, password), load_public_key(pair.public_key)
    assert private.curve.name == "secp256r1"
    assert fingerprint_of(private.public_key()) == fingerprint_of(public) == pair.fingerprint
    assert pair.fingerprint == hashlib.sha256(pair.public_key.read_bytes()).hexdigest()
    assert (b"ENCRYPTED" in pair.private_key.read_bytes()) == (password is not None)


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    pair = generate_key_pair(tmp_path / "k.pem")
    before = pair.private_key.read_bytes()
    with pytest.raises(WeightsError, match=r"k\.pub exists, and keys are never overwritten"):
        generate_key_pair(tmp_path / "k.pem")
    pair.public_key.unlink()
    with pytest.raises(WeightsError, match=r"k\.pem exists"):
        generate_key_pair(tmp_path / "k.pem")
    assert pair.private_key.read_bytes() == before
    assert not pair.public_key.exists()
    with pytest.raises(WeightsError, match=r"k2\.pub exists"):
        generate_key_pair(tmp_path / "k2.pub")
    with pytest.raises(WeightsError, match="cannot write"):
        generate_key_pair(tmp_path / "gone" / "k.pem")


def test_passwords_that_are_missing_wrong_or_too_many(tmp_path: Path) -> None:
    locked, plain = generate_key_pair(tmp_path / "a.pem", "secret"), generate_key_pair(tmp_path / "b.pem")
    with pytest.raises(WeightsError, match=rf"is encrypted with a password: set {PASSWORD_VARIABLE}"):
        load_private_key(locked.private_key, None)
    with pytest.raises(WeightsError, match="the password is wrong") as refusal:
        load_private_key(locked.private_key, "hunter2")
    assert "hunter2" not in str(refusal.value)
    with pytest.raises(WeightsError, match="is not encrypted with a password: give none"):
        load_private_key(plain.private_key, "secret")


def test_the_password_comes_from_the_environment_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PASSWORD_VARIABLE, raising=False)
    assert find_password() is None
    assert find_password(lambda: "") is None
    assert find_password(lambda: "typed") == "typed"
    monkeypatch.setenv(PASSWORD_VARIABLE, "from the environment")
    assert find_password(lambda: pytest.fail("asked")) == "from the environment"


def test_keys_of_other_kinds(tmp_path: Path) -> None:
    for key, words in (
        (ed25519.Ed25519PrivateKey.generate(), "is no elliptic key: model signatures use P-256, P-384, P-521"),
        (rsa.generate_private_key(65537, 2048), "is no elliptic key"),
        (ec.generate_private_key(ec.SECP256K1()), "is a key on secp256k1"),
    ):
        (tmp_path / "k.pem").write_bytes(key.private_bytes(*_PRIVATE))
        (tmp_path / "k.pub").write_bytes(key.public_key().public_bytes(*_PUBLIC))
        with pytest.raises(WeightsError, match=words):
            load_private_key(tmp_path / "k.pem", None)
        with pytest.raises(WeightsError, match=words):
            load_public_key(tmp_path / "k.pub")


def test_files_that_hold_no_key(tmp_path: Path) -> None:
    file = tmp_path / "f"
    with pytest.raises(WeightsError, match=r"the key file .*f cannot be read: No such file"):
        load_public_key(file)
    file.write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(WeightsError, match="more than 1,048,576 bytes"):
        load_private_key(file, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=80) | st.binary(max_size=40).map(lambda raw: b"-----BEGIN PUBLIC KEY-----\n" + raw))
def test_no_bytes_do_worse_than_a_refusal(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "f"
    file.write_bytes(raw)
    with pytest.raises(WeightsError):
        load_public_key(file)
    with pytest.raises(WeightsError):
        load_private_key(file, None)
    with pytest.raises(WeightsError):
        load_certificates([file])


def test_what_a_certificate_says(tmp_path: Path) -> None:
    authority = make_authority(tmp_path, NOW + timedelta(days=7), name="Release, Inc.")
    (certificate,) = load_certificates([authority.certificate])
    info = describe(certificate)
    assert (info.subject, info.issuer) == ("CN=Release\\, Inc.", "CN=Root")
    assert info.valid_until - info.valid_from == timedelta(days=67)
    assert len(info.fingerprint) == 64
    assert len(load_certificates([authority.certificate, authority.root])) == 2
