"""The door to OpenSSF model signing: a model's digests into a signed bundle, and back out of one.

Signing and verifying are the library's (model-signing, pinned; elliptic keys and certificates alone, so nothing here
needs a network). Hashing is ours, because the library's can neither be followed nor stopped; the bundle is the same,
and its command line verifies what is signed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import manifest as signed
from model_signing._hashing.hashing import Digest
from model_signing._signing import sign_certificate, sign_ec_key, signing
from model_signing._signing.sign_sigstore_pb import Signature
from OpenSSL import crypto
from sigstore_models.bundle.v1 import Bundle

from engine.errors import WeightsError
from engine.weights.containment import why_not_a_name
from engine.weights.keys import describe, fingerprint_of, load_certificates, load_public_key
from engine.weights.signer import BundleError, Signer
from engine.weights.strict_json import parse_json, shorten

MAX_BUNDLE_BYTES = 64 << 20
_SINGLE_FILE = "."


@dataclass(frozen=True, slots=True)
class SignedContents:
    """What a good signature covers: SHA-256 by path, and the paths that it leaves out by its own words."""

    signer: Signer
    digests: Mapping[str, str]
    ignored: tuple[str, ...]


def make_bundle(
    name: str,
    digests: Mapping[str, str],
    ignored: Sequence[str],
    has_links: bool,
    key: ec.EllipticCurvePrivateKey,
    chain: Sequence[x509.Certificate] = (),
) -> str:
    """The signed bundle's text; `chain` begins with the certificate of `key` where there is one.

    Raises:
        WeightsError: the certificate is not that of the key.
    """
    kind = signed.SerializationType.from_args(
        {"method": "files", "hash_type": "sha256", "allow_symlinks": has_links, "ignore_paths": list(ignored)}
    )
    items = [kind.new_item(path, Digest("sha256", bytes.fromhex(digest))) for path, digest in digests.items()]
    payload = signing.Payload(signed.Manifest(name, items, kind))
    signer = _CertificateSigner(key, chain) if chain else _KeySigner(key)
    bundle: Any = signer.sign(payload)
    return str(bundle.bundle.to_json())


def read_bundle(file: Path) -> Signature:
    """The bundle in `file`, of which nothing is proved yet.

    Raises:
        BundleError: there is none, or it is not one.
    """
    try:
        if file.stat().st_size > MAX_BUNDLE_BYTES:
            raise BundleError(f"it has more than {MAX_BUNDLE_BYTES:,} bytes")
        return Signature(Bundle.from_dict(_adjust(parse_json(file.read_bytes()))))
    except BundleError:
        raise
    except FileNotFoundError as error:
        raise BundleError("there is no signature") from error
    except OSError as error:
        raise BundleError(f"it cannot be read ({error.strerror or error})") from error
    except Exception as error:  # the library's models raise whatever they stumble over
        raise BundleError("it is not an OpenSSF signature bundle") from error


def claimed_signer(bundle: Signature) -> Signer:
    """Who the bundle says signed it; unproved.

    Raises:
        BundleError: it names a signer that cannot be read.
    """
    material = bundle.bundle.verification_material
    if material.public_key is not None:
        return Signer(material.public_key.hint)
    leaf = _chain_of(bundle)[0]
    key = leaf.public_key()
    return Signer(fingerprint_of(key) if isinstance(key, ec.EllipticCurvePublicKey) else None, describe(leaf))


def open_bundle(
    bundle: Signature, public_keys: Sequence[Path], certificates: Sequence[Path], now: datetime | None = None
) -> SignedContents:
    """What the bundle covers, once its signature holds for one of the keys, or for a certificate that goes back to
    one of `certificates` and is valid at `now`.

    Raises:
        BundleError: it does not hold.
        WeightsError: a key or certificate cannot be read.
    """
    signer = claimed_signer(bundle)
    if bundle.bundle.dsse_envelope is None or not bundle.bundle.dsse_envelope.signatures:
        raise BundleError("it holds no signed statement", signer)
    if signer.certificate is None:
        return _open_with_key(bundle, signer, public_keys)
    return _open_with_certificate(bundle, signer, certificates, now or datetime.now(UTC))


def _open_with_key(bundle: Signature, signer: Signer, files: Sequence[Path]) -> SignedContents:
    keys = [load_public_key(file) for file in files]
    named = [key for key in keys if signer.fingerprint in (None, fingerprint_of(key))]
    if not named:
        known = f"none of the {len(keys)} trusted keys" if len(keys) != 1 else "not the trusted key"
        raise BundleError(f"it was made with key {_short(signer.fingerprint)}, which is {known}", signer)
    for key in named:
        try:
            return _contents(_KeyVerifier(key).verify(_with_hint(bundle, key)), Signer(fingerprint_of(key)))
        except InvalidSignature:
            continue
        except BundleError as error:
            raise BundleError(str(error), signer) from error
        except Exception as error:  # the library raises whatever it stumbles over
            raise BundleError("what was signed is no statement about a model", signer) from error
    raise BundleError("it does not hold: the bundle was changed, or another key made it", signer)


def _open_with_certificate(bundle: Signature, signer: Signer, files: Sequence[Path], now: datetime) -> SignedContents:
    if not files:
        raise BundleError("it was made with a certificate: name the root certificate that you trust", signer)
    roots, chain = load_certificates(files), _chain_of(bundle)
    _check_certificates(chain, roots, now, signer)
    try:
        return _contents(sign_certificate.Verifier(files).verify(bundle), signer)
    except InvalidSignature as error:
        raise BundleError("it does not hold: the bundle was changed", signer) from error
    except crypto.X509StoreContextError as error:
        raise BundleError(f"its certificate does not go back to one that is trusted ({error})", signer) from error
    except BundleError as error:
        raise BundleError(str(error), signer) from error
    except Exception as error:  # the library raises whatever it stumbles over
        raise BundleError("what was signed is no statement about a model", signer) from error


def _check_certificates(
    chain: list[x509.Certificate], roots: list[x509.Certificate], now: datetime, signer: Signer
) -> None:
    """The library looks at the chain as of the day that the certificate began, so whether it is still valid is
    looked at here."""
    leaf = chain[0]
    if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
        raise BundleError(
            f"its certificate is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to "
            f"{leaf.not_valid_after_utc:%Y-%m-%d}, not now; have it signed again with one that is",
            signer,
        )
    if not isinstance(leaf.public_key(), ec.EllipticCurvePublicKey) or not _may_sign(leaf):
        raise BundleError("its certificate is not one for signing with an elliptic key", signer)
    store = crypto.X509Store()
    for root in roots:
        store.add_cert(crypto.X509.from_cryptography(root))
    store.set_time(now)
    between = [crypto.X509.from_cryptography(certificate) for certificate in chain[1:]]
    try:
        crypto.X509StoreContext(store, crypto.X509.from_cryptography(leaf), between).verify_certificate()
    except crypto.X509StoreContextError as error:
        raise BundleError(f"its certificate does not go back to one that is trusted ({error})", signer) from error


def _may_sign(leaf: x509.Certificate) -> bool:
    try:
        return leaf.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    except (x509.ExtensionNotFound, ValueError):
        return False


def _contents(manifest: signed.Manifest, signer: Signer) -> SignedContents:
    """The library's manifest as ours."""
    kind = manifest.serialization_type
    if kind.get("method") != "files" or kind.get("hash_type") != "sha256":
        raise BundleError("it covers parts of files or uses another digest than SHA-256: have it signed file by file")
    digests: dict[str, str] = {}
    for item in manifest.resource_descriptors():
        if item.identifier != _SINGLE_FILE and (reason := why_not_a_name(item.identifier)):
            raise BundleError(f"it names the file {shorten(repr(item.identifier))}: {reason}")
        if item.digest.algorithm != "sha256" or len(item.digest.digest_value) != 32:
            raise BundleError(f"it has no SHA-256 for {shorten(item.identifier)}")
        digests[item.identifier] = item.digest.digest_hex
    ignored = kind.get("ignore_paths", [])
    return SignedContents(signer, digests, tuple(sorted(PurePosixPath(path).as_posix() for path in ignored)))


def _adjust(table: Any) -> Any:
    """Bundles of older versions into the form that the library's model takes."""
    material = table["verificationMaterial"]
    material.setdefault("tlogEntries", [])
    if (key := material.get("publicKey")) is not None:
        material["publicKey"] = {"hint": key.get("hint")}
    return table


def _with_hint(bundle: Signature, key: ec.EllipticCurvePublicKey) -> Signature:
    """The library prints a warning when the bundle does not say whose it is. It proves nothing, so it may be said."""
    table = json.loads(bundle.bundle.to_json())
    table["verificationMaterial"]["publicKey"] = {"hint": fingerprint_of(key)}
    table["verificationMaterial"].setdefault("tlogEntries", [])
    return Signature(Bundle.from_dict(table))


def _chain_of(bundle: Signature) -> list[x509.Certificate]:
    material = bundle.bundle.verification_material
    if material.x509_certificate_chain is None or not material.x509_certificate_chain.certificates:
        raise BundleError("it was made without a key of its own (Sigstore), which needs a network to verify")
    try:
        return [x509.load_der_x509_certificate(item.raw_bytes) for item in material.x509_certificate_chain.certificates]
    except ValueError as error:
        raise BundleError("its certificates cannot be read") from error


def _short(fingerprint: str | None) -> str:
    return shorten(fingerprint, 16) if fingerprint else "unknown"


class _KeySigner(sign_ec_key.Signer):
    """The library's, given the key instead of a path and a password."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._private_key = key


class _CertificateSigner(sign_certificate.Signer):
    """The library's, given the key and the chain instead of paths."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> None:
        if chain[0].public_key() != key.public_key():
            raise WeightsError(
                f"the certificate of {chain[0].subject.rfc4514_string()} is not that of the private key: give the "
                "certificate that was made for this key"
            )
        self._private_key = key
        self._signing_certificate, self._trust_chain = chain[0], list(chain[1:])


class _KeyVerifier(sign_ec_key.Verifier):
    """The library's, given the key instead of a path."""

    def __init__(self, key: ec.EllipticCurvePublicKey) -> None:
        self._public_key = key
