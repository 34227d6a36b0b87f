"""How much the caches hold, and whether it is what it was."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel, Field

from engine.api.admin.schemas import CacheAnswer, ResponsesSize, WeightsSize
from engine.api.provider import ConsoleOfServer
from engine.gateway import ResponseCache
from engine.weights.cache import WeightsCache
from engine.weights.cache_jobs import CacheJobs, CacheProgress, CacheReport

router = APIRouter(prefix="/cache", tags=["cache"])


class VerificationAnswer(BaseModel):
    """Times are seconds since the epoch, sizes bytes."""

    progress: CacheProgress | None = Field(description="what is under way")
    report: CacheReport | None = Field(description="the last time the cache was read whole")
    error: str | None = Field(description="why the last work broke off")


@router.get("", summary="Sizes of the caches")
def get_caches(console: ConsoleOfServer) -> CacheAnswer:
    """Bytes that several models share count once."""
    return CacheAnswer(weights=_weights_size(console.weights.cache), responses=_responses_size(console.gateway.cache))


@router.get("/responses", summary="What the response cache did and holds")
def get_responses(console: ConsoleOfServer) -> ResponsesSize:
    """Counts are of choices, since the console opened."""
    return _responses_size(console.gateway.cache)


@router.delete("/responses", status_code=204, summary="Forget all kept answers")
def clear_responses(console: ConsoleOfServer) -> None:
    """The counts stay."""
    console.gateway.cache.clear()


@router.post("/verify", status_code=202, summary="Verify the weights cache")
def verify_cache(console: ConsoleOfServer) -> VerificationAnswer:
    """Begins to read every byte and compare it with its digest; what is under way already goes on as it is."""
    console.cache_jobs.verify()
    return _verification(console.cache_jobs)


@router.get("/verify", summary="How verifying the weights cache goes, or went")
def get_verification(console: ConsoleOfServer) -> VerificationAnswer:
    """What is under way, and the last report."""
    return _verification(console.cache_jobs)


@router.delete("/verify", status_code=204, summary="Cancel verifying the weights cache")
def cancel_verification(console: ConsoleOfServer) -> None:
    """The last report stays."""
    console.cache_jobs.cancel()


def _verification(jobs: CacheJobs) -> VerificationAnswer:
    return VerificationAnswer(progress=jobs.progress(), report=jobs.report(), error=jobs.error)


def _responses_size(cache: ResponseCache) -> ResponsesSize:
    return ResponsesSize.model_validate(cache.figures(), from_attributes=True)


def _weights_size(cache: WeightsCache) -> WeightsSize:
    entries = cache.entries()
    files = {inode: size for entry in entries for inode, size in entry.files.items()}
    return WeightsSize(num_entries=len(entries), size_bytes=sum(files.values()), max_bytes=cache.max_bytes)
