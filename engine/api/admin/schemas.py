"""The bodies of the admin API, and their translation to the engine's terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, Field

from engine.api.schemas import Body
from engine.models.schemes import Ability, default_quantization
from engine.models.spec import Attention, Device, DType, Granularity, ModelSpec, Quantization, Scheme
from engine.scheduling.quota import MAX_QUOTA, Quota
from engine.state.api_keys import MAX_NAME_LENGTH, ApiKey, Scope, Usage
from engine.weights.sources import SAMPLE

MAX_DRAIN_S = 86_400.0

Item = TypeVar("Item")


class Listing(BaseModel, Generic[Item]):
    """OpenAI's shape of a list."""

    object: Literal["list"] = "list"
    data: list[Item]


class QuantizationBody(Body):
    """What is left out is as suits the scheme and the device best."""

    scheme: Scheme
    granularity: Granularity | None = None
    group_size: int | None = Field(None, ge=1)
    is_symmetric: bool | None = None
    keep: tuple[str, ...] | None = Field(None, description="layers left in high precision, by the end of their name")
    prompts: tuple[str, ...] | None = Field(None, description="texts that int8-static measures activations on")

    def to_quantization(self, device: Device) -> Quantization:
        """On a device `auto` the defaults are those of a CPU."""
        start = default_quantization(self.scheme, Ability("cuda" if device == "cuda" else "cpu"))
        given: dict[str, Any] = self.model_dump(exclude_none=True)
        return replace(start, **given)


class SpecBody(Body):
    """What to load."""

    source: str = Field(
        min_length=1, description=f"a model folder, a .gguf file, a hub id (`org/name@revision`), or `{SAMPLE}`"
    )
    device: Device = "auto"
    dtype: DType = "auto"
    quantization: QuantizationBody | None = None
    context_length: int | None = Field(None, ge=1, description="tokens that one request may hold; the model's own")
    max_running: int | None = Field(None, ge=1, le=1024, description="requests in one batch; the setting's")
    attention: Attention = "auto"

    def to_spec(self, name: str | None = None) -> ModelSpec:
        """The engine's term for it."""
        quantization = None if self.quantization is None else self.quantization.to_quantization(self.device)
        return ModelSpec(
            self.source,
            name,
            self.device,
            self.dtype,
            quantization,
            self.context_length,
            self.max_running,
            self.attention,
        )


class LoadBody(SpecBody):
    """A model to load, and the name that clients call it by."""

    name: str | None = Field(None, min_length=1, description="the source's own name, unless another is given")
    is_pinned: bool = Field(False, description="never unloaded to make room for another")


class SwapBody(SpecBody):
    """The next version of a model."""

    drain_s: float = Field(30.0, ge=0, le=MAX_DRAIN_S, description="seconds that the old version's requests get to end")


class UnloadBody(Body):
    """How to unload."""

    drain_s: float = Field(default=30.0, ge=0, le=MAX_DRAIN_S, description="seconds that its requests get to end")


class Accepted(BaseModel):
    """It has begun; `GET /admin/models/{name}` tells how it goes."""

    name: str


class SwapEnd(BaseModel):
    """`has_ended` is false where there was no swap, or the new version serves already."""

    has_ended: bool


class QuotaBody(Body):
    """Bounds of a key; without a bound where one is left out."""

    requests_per_minute: int | None = Field(default=None, ge=1, le=MAX_QUOTA)
    tokens_per_minute: int | None = Field(
        default=None, ge=1, le=MAX_QUOTA, description="of prompts and answers together"
    )
    concurrent_requests: int | None = Field(default=None, ge=1, le=MAX_QUOTA)

    def to_quota(self) -> Quota:
        """The engine's term for it."""
        return Quota(self.requests_per_minute, self.tokens_per_minute, self.concurrent_requests)


class KeyBody(Body):
    """A key to make."""

    name: str = Field(min_length=1, max_length=MAX_NAME_LENGTH)
    scopes: list[Scope] = Field(min_length=1)
    expires_in_s: float | None = Field(None, gt=0, le=1e9, description="seconds until it ends by itself; null: never")
    quota: QuotaBody = QuotaBody()


class KeyAnswer(BaseModel):
    """A key without its secret. Times are seconds since the epoch."""

    id: str
    name: str
    prefix: str = Field(description="the first characters of the secret")
    scopes: list[Scope]
    quota: Quota
    created_at_s: float
    expires_at_s: float | None
    revoked_at_s: float | None
    last_used_at_s: float | None
    usage: Usage

    @classmethod
    def of(cls, key: ApiKey) -> KeyAnswer:
        """What is told of a key."""
        return cls.model_validate(
            {name: getattr(key, name) for name in cls.model_fields} | {"scopes": sorted(key.scopes)}
        )


class NewKeyAnswer(BaseModel):
    """A key and its secret, which is told this once."""

    key: KeyAnswer
    secret: str


class WeightsSize(BaseModel):
    """`max_bytes` is null where there is no bound."""

    num_entries: int
    size_bytes: int
    max_bytes: int | None


class ResponsesSize(BaseModel):
    """Answers to deterministic requests; `max_bytes` is 0 where none are kept."""

    num_hits: int = Field(description="answered from what was kept")
    num_shared: int = Field(description="answered by the run of another request that asked the same")
    num_misses: int
    num_entries: int
    size_bytes: int
    max_bytes: int
    ttl_s: float
    saved_s: float = Field(description="engine time of the answers that were given again")


class CacheAnswer(BaseModel):
    """The console's caches."""

    weights: WeightsSize
    responses: ResponsesSize
