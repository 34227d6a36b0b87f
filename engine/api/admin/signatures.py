"""Check who signed a folder and which of its files changed: begun, followed, cancelled."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from engine.api.admin.signature_schemas import VerifyAnswer, VerifyBody
from engine.api.admin.weights import BUSY, Folder, absolute
from engine.api.provider import ConsoleOfServer
from engine.job import JobRunningError
from engine.weights.trust import SignatureMode, TrustPolicy
from engine.weights.trust_jobs import JobKind, TrustJobs

router = APIRouter(prefix="/verify", tags=["weights"])


@router.post("", status_code=202, responses=BUSY, summary="Check a model folder's signature")
def verify_folder(body: VerifyBody, console: ConsoleOfServer) -> VerifyAnswer:
    """Begins to read every byte of the folder: who signed it, whether that holds, which files changed since."""
    folder, policy = absolute(body.folder), console.weights.policy_of_folders
    if body.public_keys or body.certificates:
        keys, roots = tuple(map(absolute, body.public_keys)), tuple(map(absolute, body.certificates))
        policy = TrustPolicy(SignatureMode.WARN, keys, roots)
    if not console.trust.verify(folder, policy):
        raise JobRunningError("a model is being verified, trusted or signed: wait for its end, or cancel it")
    return _answer(console.trust, folder)


@router.get("", summary="How checking a folder's signature goes, or went")
def get_verify(folder: Folder, console: ConsoleOfServer) -> VerifyAnswer:
    """The check of this folder that is under way, or else the last one."""
    return _answer(console.trust, folder)


@router.delete("", status_code=204, summary="Cancel checking a signature")
def cancel_verify(console: ConsoleOfServer) -> None:
    """Nothing is changed by it, nor by its end."""
    progress = console.trust.progress()
    if progress is not None and progress.kind is JobKind.VERIFY:
        console.trust.cancel()


def _answer(trust: TrustJobs, folder: Path) -> VerifyAnswer:
    progress = trust.progress()
    is_of_it = progress is not None and progress.kind is JobKind.VERIFY and progress.folder == folder
    return VerifyAnswer.of(progress if is_of_it else None, trust.outcome(folder))
