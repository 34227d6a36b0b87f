"""`POST /tokenize` and `POST /detokenize`, with the fields that vLLM's have."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field, StrictInt

from engine.api.auth import require_key
from engine.api.document import UNKNOWN_MODEL
from engine.api.messages import ChatMessage
from engine.api.provider import ConsoleOfServer
from engine.api.schemas import Body
from engine.console import Console
from engine.errors import InvalidRequestError
from engine.inference.tokens import TokenizeRequest
from engine.instance import InstanceState

router = APIRouter(dependencies=[Depends(require_key)], responses=UNKNOWN_MODEL)

_Model = Annotated[str | None, Field(description="may be left out where one model is ready")]


class TokenizeBody(Body):
    model: _Model = None
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(None, fail_fast=True)
    add_special_tokens: bool | None = Field(
        None, description="default true; not with messages: their template has them"
    )
    add_generation_prompt: bool = Field(True, description="after messages: what stands where an answer begins")
    return_token_strs: bool = False

    def to_request(self, model: str) -> TokenizeRequest:
        """Raises InvalidRequestError for what the schema alone cannot refuse."""
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequestError("send either prompt or messages", "prompt")
        if self.messages is not None and self.add_special_tokens:
            raise InvalidRequestError(
                "add_special_tokens is not allowed with messages, the chat template writes them: leave it out",
                "add_special_tokens",
            )
        return TokenizeRequest(
            model=model,
            prompt=self.prompt,
            messages=tuple(message.to_message(f"messages.{at}") for at, message in enumerate(self.messages or ())),
            add_special_tokens=self.add_special_tokens is not False,
            add_generation_prompt=self.add_generation_prompt,
            has_texts=self.return_token_strs,
        )


class TokenizeAnswer(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeBody(Body):
    model: _Model = None
    tokens: list[StrictInt] = Field(fail_fast=True)
    long_fields = frozenset({"tokens"})


class DetokenizeAnswer(BaseModel):
    prompt: str


@router.post("/tokenize", summary="Cut a text or messages into a model's tokens")
async def tokenize(body: TokenizeBody, console: ConsoleOfServer) -> TokenizeAnswer:
    """Nothing is generated."""
    request = body.to_request(_choose_model(body.model, console))
    tokens = await run_in_threadpool(console.gateway.tokenize, request)
    return TokenizeAnswer(
        count=len(tokens.ids),
        max_model_len=tokens.context_length,
        tokens=list(tokens.ids),
        token_strs=None if tokens.texts is None else list(tokens.texts),
    )


@router.post("/detokenize", summary="Join a model's tokens to text")
async def detokenize(body: DetokenizeBody, console: ConsoleOfServer) -> DetokenizeAnswer:
    """Special tokens are part of the text."""
    model = _choose_model(body.model, console)
    return DetokenizeAnswer(prompt=await run_in_threadpool(console.gateway.detokenize, model, tuple(body.tokens)))


def _choose_model(name: str | None, console: Console) -> str:
    if name is not None:
        return name
    ready = [info.name for info in console.engine.serving() if info.state is InstanceState.READY]
    if len(ready) != 1:
        raise InvalidRequestError(f"model is missing and {len(ready)} models are ready: name one", "model")
    return ready[0]
