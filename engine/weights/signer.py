"""Who signed a model, told without the signing library: importing it takes half a second."""

from __future__ import annotations

from dataclasses import dataclass

from engine.weights.keys import CertificateInfo


class BundleError(Exception):
    """A bundle that proves nothing, with the reason in words that fit after a colon. `signer` is who it claims."""

    def __init__(self, message: str, signer: Signer | None = None) -> None:
        super().__init__(message)
        self.signer = signer


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed: the SHA-256 of the public key (None where the bundle does not say), and the certificate if any."""

    fingerprint: str | None
    certificate: CertificateInfo | None = None
