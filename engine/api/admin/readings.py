"""What the admin API tells of a model: an instance's reading, field by field."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from engine.api.admin.schemas import Listing
from engine.inference.stats import RunnerStats
from engine.instance import InstanceInfo, InstanceState, Role
from engine.models.comparison import MemoryReading
from engine.models.spec import ModelInfo, ModelSpec


class InstanceAnswer(BaseModel):
    """One version of a model. Times are seconds since the epoch."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    version: int = Field(description="1 for the first under a name, one more with every swap")
    role: Role = Field(description="of each name one serves; in a swap another one is next, or leaving")
    state: InstanceState
    reason: str | None = Field(description="why it failed")
    stage: str | None = Field(description="what loading is doing now")
    progress: float | None = Field(description="the stage's fraction, null where it is not known")
    since_s: float = Field(description="when the state began")
    retry_at_s: float | None = Field(description="when a failed worker starts again by itself")
    num_restarts: int
    last_used_s: float | None
    is_pinned: bool
    spec: ModelSpec = Field(description="what was asked for")
    model: ModelInfo | None = Field(description="what was loaded")
    stats: RunnerStats | None = Field(description="queue, batch and KV cache now")
    memory: MemoryReading | None = Field(description="planned and measured")


def listing_of(infos: Iterable[InstanceInfo]) -> Listing[InstanceAnswer]:
    """The readings as a list that is sent."""
    return Listing[InstanceAnswer](data=[InstanceAnswer.model_validate(info) for info in infos])
