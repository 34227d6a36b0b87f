"""Elliptic keys and certificates for signing models: reading, making, telling who they are. Nothing of a private key
or its password is ever put into a message or a log.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.errors import WeightsError

PASSWORD_VARIABLE = "MODEL_SIGNING_PASSWORD"
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_MAX_PEM_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says: of whom, by whom, from when until when."""

    subject: str
    issuer: str
    valid_from: datetime
    valid_until: datetime
    fingerprint: str


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A new key pair. `fingerprint` is the public key's."""

    private_key: Path
    public_key: Path
    fingerprint: str


def fingerprint_of(key: ec.EllipticCurvePublicKey) -> str:
    """SHA-256 (hex) of the key's PEM: what an OpenSSF signature carries, and what `sha256sum KEY.pub` prints."""
    return hashlib.sha256(_pem_of(key)).hexdigest()


def generate_key_pair(private_key: Path, password: str | None = None) -> KeyPair:
    """Make a P-256 key pair: the private key at `private_key`, readable by its owner alone and encrypted where there
    is a password, the public one beside it with the suffix .pub.

    Raises:
        WeightsError: one of the two files exists, or cannot be written.
    """
    public_key = private_key.with_suffix(".pub")
    key = ec.generate_private_key(ec.SECP256R1())
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password.encode())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    if public_key.exists() or public_key == private_key:
        raise _exists(public_key)
    _write_new(private_key, pem, 0o600)
    try:
        _write_new(public_key, _pem_of(key.public_key()), 0o644)
    except WeightsError:
        private_key.unlink()
        raise
    return KeyPair(private_key, public_key, fingerprint_of(key.public_key()))


def find_password(ask: Callable[[], str] | None = None) -> str | None:
    """The private key's password from the environment, else what `ask` gives; None when there is none."""
    return os.environ.get(PASSWORD_VARIABLE) or (ask() if ask is not None else None) or None


def is_encrypted(file: Path) -> bool:
    """Whether the private key in a PEM file has a password.

    Raises:
        WeightsError: it cannot be read.
    """
    return b"ENCRYPTED" in _read_pem(file)


def load_private_key(file: Path, password: str | None) -> ec.EllipticCurvePrivateKey:
    """The private key in a PEM file.

    Raises:
        WeightsError: it cannot be read, the password is missing or wrong, or it is no elliptic key of a curve that
            model signatures use.
    """
    raw = _read_pem(file)
    try:
        key = serialization.load_pem_private_key(raw, password.encode() if password else None)
    except TypeError as error:
        remedy = f"set {PASSWORD_VARIABLE}, or type it in" if not password else "give none"
        raise WeightsError(f"{file} is {'' if not password else 'not '}encrypted with a password: {remedy}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "the password is wrong, or it is damaged" if password else "it is no PEM private key"
        raise WeightsError(f"{file} cannot be read as a private key: {why}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _no_elliptic_key(file)
    _check_curve(file, key.public_key())
    return key


def load_public_key(file: Path) -> ec.EllipticCurvePublicKey:
    """The public key in a PEM file.

    Raises:
        WeightsError: it cannot be read, or is no elliptic key of a curve that model signatures use.
    """
    try:
        key = serialization.load_pem_public_key(_read_pem(file))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise WeightsError(
            f"{file} cannot be read as a public key: give a PEM file that begins with PUBLIC KEY"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _no_elliptic_key(file)
    _check_curve(file, key)
    return key


def load_certificates(files: Sequence[Path]) -> list[x509.Certificate]:
    """All certificates in PEM files.

    Raises:
        WeightsError: one cannot be read.
    """
    found: list[x509.Certificate] = []
    for file in files:
        try:
            found += x509.load_pem_x509_certificates(_read_pem(file))
        except ValueError as error:
            raise WeightsError(
                f"{file} cannot be read as certificates: give a PEM file with CERTIFICATE blocks"
            ) from error
    return found


def describe(certificate: x509.Certificate) -> CertificateInfo:
    """What the certificate says of itself; its fingerprint is SHA-256 of its DER."""
    return CertificateInfo(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        valid_from=certificate.not_valid_before_utc,
        valid_until=certificate.not_valid_after_utc,
        fingerprint=hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest(),
    )


def _pem_of(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _read_pem(file: Path) -> bytes:
    try:
        if file.stat().st_size > _MAX_PEM_BYTES:
            raise WeightsError(f"{file} has more than {_MAX_PEM_BYTES:,} bytes, which no PEM file of keys has")
        return file.read_bytes()
    except OSError as error:
        raise WeightsError(f"the key file {file} cannot be read: {error.strerror or error}; check the path") from error


def _write_new(file: Path, raw: bytes, mode: int) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise _exists(file) from error
    except OSError as error:
        raise WeightsError(f"cannot write {file}: {error.strerror or error}; choose another folder") from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(raw)
    except OSError as error:
        with contextlib.suppress(OSError):
            file.unlink()
        raise WeightsError(f"cannot write {file}: {error.strerror or error}; free space there") from error


def _exists(file: Path) -> WeightsError:
    return WeightsError(f"{file} exists, and keys are never overwritten: choose another name")


def _no_elliptic_key(file: Path) -> WeightsError:
    return WeightsError(f"{file} is no elliptic key: model signatures use {', '.join(_CURVES.values())}")


def _check_curve(file: Path, key: ec.EllipticCurvePublicKey) -> None:
    if key.curve.name not in _CURVES:
        raise WeightsError(f"{file} is a key on {key.curve.name}: model signatures use {', '.join(_CURVES.values())}")
