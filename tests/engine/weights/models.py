"""A small folder that looks like a model, and keys and certificates to sign it with."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "original/params.json": b"[]",
    "README.md": b"hi",
}


def quiet(_stage: str, _fraction: float | None) -> None:
    """Progress that nobody looks at."""


def make_folder(folder: Path) -> Path:
    """The folder with `FILES`, as if written an hour ago."""
    for name, content in FILES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        age(file)
    return folder


def age(file: Path) -> None:
    """Let the file be an hour old: digests of new ones are not remembered."""
    then_s = file.stat().st_mtime - 3600
    os.utime(file, (then_s, then_s))


@dataclass(frozen=True)
class Authority:
    """A root certificate, and one for signing that it issued."""

    root: Path
    certificate: Path
    private_key: Path


def make_authority(
    folder: Path, valid_until: datetime = NOW + timedelta(days=30), may_sign: bool = True, name: str = "Release"
) -> Authority:
    """A root of its own and a certificate for `name`, valid from 60 days ago."""
    folder.mkdir(parents=True, exist_ok=True)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    root = _certificate("Root", root_key, "Root", root_key, NOW + timedelta(days=3650), None)
    leaf = _certificate(name, key, "Root", root_key, valid_until, may_sign)
    paths = Authority(folder / "root.pem", folder / "leaf.pem", folder / "key.pem")
    paths.root.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    paths.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    paths.private_key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def _certificate(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    until: datetime,
    may_sign: bool | None,
) -> x509.Certificate:
    """A root when `may_sign` is None."""
    is_root = may_sign is None
    usage = x509.KeyUsage(bool(may_sign), False, False, False, False, is_root, is_root, False, False)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=None), critical=True)
        .add_extension(usage, critical=True)
    )
    return builder.sign(issuer_key, hashes.SHA256())


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
