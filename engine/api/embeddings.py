"""`POST /v1/embeddings`: a vector of length 1 for each text, from the hidden states of a loaded model."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from array import array
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import Response
from pydantic import BaseModel, Field

from engine.api.document import GENERATION
from engine.api.prompts import Prompts, split_prompts
from engine.api.quotas import Metered
from engine.api.request_ids import request_id_of
from engine.api.schemas import Body, WholeText
from engine.api.streaming import ended_with_client
from engine.inference.embedding import EmbeddingRequest, Embeddings, Pooling

router = APIRouter()


class EmbeddingBody(Body):
    model: WholeText
    input: Prompts
    encoding_format: Literal["float", "base64"] = Field("float", description="base64: little-endian float32")
    dimensions: int | None = Field(None, description="the model's own width, or nothing")
    pooling: Pooling = Field(Pooling.MEAN, description="of the last layer: the mean over the tokens, or the last token")
    timeout_s: float | None = Field(None, gt=0, le=86_400, description="deadline in seconds from receipt")
    user: str | None = Field(None, description="accepted; it has no effect on the answer")
    long_fields = frozenset({"input"})

    def to_request(self, request_id: str) -> EmbeddingRequest:
        """In the engine's terms."""
        return EmbeddingRequest(
            model=self.model,
            inputs=split_prompts(self.input),
            pooling=self.pooling,
            dimensions=self.dimensions,
            timeout_s=self.timeout_s,
            source="api",
            request_id=request_id,
        )


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: EmbeddingUsage


@router.post("/embeddings", response_model=EmbeddingList, responses=GENERATION, summary="Embed texts")
async def create_embeddings(body: EmbeddingBody, http: Request, meter: Metered) -> Response:
    """Texts of all clients are run together, between the steps of generation. A client that leaves takes its texts
    with it."""
    job = await run_in_threadpool(meter.embed, body.to_request(request_id_of(http, "embd-")))
    async with ended_with_client(job, http):
        embeddings = await asyncio.wrap_future(job.outcome)
    content = await run_in_threadpool(_render, embeddings, body)
    return Response(content, media_type="application/json", headers=meter.headers())


def _render(embeddings: Embeddings, body: EmbeddingBody) -> bytes:
    """JSON without a pydantic object around each of a million numbers."""
    encode = _base64 if body.encoding_format == "base64" else array.tolist
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(embeddings.vectors)
    ]
    usage = {"prompt_tokens": embeddings.num_tokens, "total_tokens": embeddings.num_tokens}
    answer: dict[str, Any] = {"object": "list", "model": body.model, "data": data, "usage": usage}
    return json.dumps(answer, separators=(",", ":")).encode()


def _base64(vector: array[float]) -> str:
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode()
