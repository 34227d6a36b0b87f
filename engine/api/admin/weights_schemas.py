"""The bodies and answers of pulling, signing and quantizing. Times are seconds since the epoch, sizes bytes."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

from engine.api.admin.schemas import QuantizationBody
from engine.api.schemas import Body
from engine.models.quantizing import QuantizedFolder
from engine.models.spec import Device, DType, ModelSpec
from engine.staged_job import StageProgress
from engine.weights.keys import PASSWORD_VARIABLE
from engine.weights.pull import Pulled
from engine.weights.signature import SignedModel
from engine.weights.sources import SAMPLE
from engine.weights.trust_jobs import JobKind, JobOutcome, JobProgress


class PullBody(Body):
    """What to pull."""

    source: str = Field(min_length=1, description=f"a hub id (`org/name@revision`), a .gguf file, or `{SAMPLE}`")


class QuantizeBody(Body):
    """What to quantize, how, and where to."""

    source: str = Field(min_length=1, description="what a model is loaded from")
    quantization: QuantizationBody
    output: Path = Field(description="a folder of the server, absolute, that is new or empty")
    device: Device = "auto"
    dtype: DType = "auto"

    def to_spec(self) -> ModelSpec:
        """The engine's term for it."""
        quantization = self.quantization.to_quantization(self.device)
        return ModelSpec(self.source, device=self.device, dtype=self.dtype, quantization=quantization)


class SignBody(Body):
    """What to sign, and the key. All paths are the server's."""

    folder: Path = Field(description="a model folder or a .gguf file, absolute")
    private_key: Path = Field(description="an elliptic key in PEM")
    password: SecretStr | None = Field(None, description=f"the key's; else that of the server's {PASSWORD_VARIABLE}")
    certificates: tuple[Path, ...] = Field((), description="of the key, then its issuers")


class PullAnswer(BaseModel):
    """How pulling goes, or went."""

    progress: StageProgress | None = Field(description="what is under way")
    report: Pulled | None = Field(description="what the last one came to")
    error: str | None = Field(description="why the last one broke off")


class QuantizeAnswer(BaseModel):
    """How quantizing goes, or went."""

    progress: StageProgress | None = Field(description="what is under way")
    report: QuantizedFolder | None = Field(description="what the last one came to")
    error: str | None = Field(description="why the last one broke off")


class SignReport(BaseModel):
    """A signature that was made."""

    signature: Path
    signer: str | None = Field(description="SHA-256 of the public key")
    num_files: int
    signed_s: float


class SignAnswer(BaseModel):
    """How signing a folder goes, or went."""

    progress: JobProgress | None = Field(description="what is under way")
    report: SignReport | None = Field(description="what the last one came to")
    error: str | None = Field(description="why the last one broke off, or that it was cancelled")

    @classmethod
    def of(cls, progress: JobProgress | None, outcome: JobOutcome | None) -> SignAnswer:
        """From what is under way and how the last job on the folder ended, where that was to sign."""
        if outcome is None or outcome.kind is not JobKind.SIGN:
            return cls(progress=progress, report=None, error=None)
        made = outcome.result
        report = None
        if isinstance(made, SignedModel):
            report = SignReport(
                signature=made.signature,
                signer=made.signer.fingerprint,
                num_files=len(made.manifest.digests),
                signed_s=made.signed_s,
            )
        return cls(progress=progress, report=report, error=outcome.error)
