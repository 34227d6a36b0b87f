"""Pull a model into the weights cache, sign a folder, quantize a model into a folder: begun, followed, cancelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends

from engine.api.admin.weights_schemas import (
    PullAnswer,
    PullBody,
    QuantizeAnswer,
    QuantizeBody,
    SignAnswer,
    SignBody,
)
from engine.api.document import errors
from engine.api.provider import ConsoleOfServer
from engine.errors import WeightsError
from engine.job import JobRunningError
from engine.models.quantizing import Quantizing
from engine.weights.keys import find_password
from engine.weights.pull import Pulls
from engine.weights.trust_jobs import JobKind, TrustJobs

router = APIRouter(tags=["weights"])
BUSY = errors({409: "Other work of this kind is under way."})


def absolute(folder: Path) -> Path:
    """The path as it is. The server's own working folder is nothing that a client knows.

    Raises:
        WeightsError: it is a relative one.
    """
    if not folder.is_absolute():
        raise WeightsError(f"{str(folder)!r} is a relative path: give one that begins with /")
    return folder


Folder = Annotated[Path, Depends(absolute)]


@router.post("/pull", status_code=202, responses=BUSY, summary="Pull a model into the weights cache")
def pull_model(body: PullBody, console: ConsoleOfServer) -> PullAnswer:
    """Begins to fetch it, and to unpack a GGUF file; a pull that was cancelled goes on where it stopped."""
    console.pulls.pull(body.source)
    return _pull_answer(console.pulls)


@router.get("/pull", summary="How pulling goes, or went")
def get_pull(console: ConsoleOfServer) -> PullAnswer:
    """What is under way, or else the last one that was begun."""
    return _pull_answer(console.pulls)


@router.delete("/pull", status_code=204, summary="Cancel pulling")
def cancel_pull(console: ConsoleOfServer) -> None:
    """What has arrived is kept."""
    console.pulls.cancel()


@router.post("/quantize", status_code=202, responses=BUSY, summary="Quantize a model and save it as a folder")
def quantize_model(body: QuantizeBody, console: ConsoleOfServer) -> QuantizeAnswer:
    """Begins to load it, in turn with other loads; the folder loads again with the same logits to the bit."""
    console.quantizing.quantize(body.to_spec(), absolute(body.output))
    return _quantize_answer(console.quantizing)


@router.get("/quantize", summary="How quantizing goes, or went")
def get_quantize(console: ConsoleOfServer) -> QuantizeAnswer:
    """What is under way, or else the last one that was begun."""
    return _quantize_answer(console.quantizing)


@router.delete("/quantize", status_code=204, summary="Cancel quantizing")
def cancel_quantize(console: ConsoleOfServer) -> None:
    """Nothing is written once it is cancelled."""
    console.quantizing.cancel()


@router.post("/sign", status_code=202, responses=BUSY, summary="Sign a model folder")
def sign_folder(body: SignBody, console: ConsoleOfServer) -> SignAnswer:
    """Begins to read every byte of the folder; the signature is written into it over an older one."""
    folder = absolute(body.folder)
    password = None if body.password is None else body.password.get_secret_value()
    if not console.trust.sign(folder, body.private_key, password or find_password(), body.certificates):
        raise JobRunningError("a model is being verified, trusted or signed: wait for its end, or cancel it")
    return _sign_answer(console.trust, folder)


@router.get("/sign", summary="How signing a folder goes, or went")
def get_sign(folder: Folder, console: ConsoleOfServer) -> SignAnswer:
    """The signing of this folder that is under way, or else the last one."""
    return _sign_answer(console.trust, folder)


@router.delete("/sign", status_code=204, summary="Cancel signing")
def cancel_sign(console: ConsoleOfServer) -> None:
    """An older signature stays as it was."""
    progress = console.trust.progress()
    if progress is not None and progress.kind is JobKind.SIGN:
        console.trust.cancel()


def _pull_answer(pulls: Pulls) -> PullAnswer:
    return PullAnswer(progress=pulls.progress(), report=pulls.report(), error=pulls.error)


def _quantize_answer(quantizing: Quantizing) -> QuantizeAnswer:
    return QuantizeAnswer(progress=quantizing.progress(), report=quantizing.report(), error=quantizing.error)


def _sign_answer(trust: TrustJobs, folder: Path) -> SignAnswer:
    progress = trust.progress()
    is_of_it = progress is not None and progress.kind is JobKind.SIGN and progress.folder == folder
    return SignAnswer.of(progress if is_of_it else None, trust.outcome(folder))
