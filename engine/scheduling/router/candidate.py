"""What the router sees of a request and of an instance."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.scheduling.router.breaker import Breaker


class Feature(StrEnum):
    """What a request can need of an instance."""

    TEXT = "text"
    IMAGES = "images"
    STRUCTURED_OUTPUT = "structured output"
    TOOLS = "tools"


class Precision(StrEnum):
    """Which of several quantizations of a model is wanted: the most bits a weight, the fewest, or about eight."""

    QUALITY = "quality"
    BALANCED = "balanced"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as the router sees it.

    Attributes:
        num_prompt_tokens: the fewest that its prompt can have; the instance itself counts them.
        max_tokens: None where the request names none.
        precision: None where any will do.
        key: decides where the request falls among weighted targets; the same key falls alike.
    """

    model: str
    num_prompt_tokens: int = 0
    max_tokens: int | None = None
    features: frozenset[Feature] = frozenset({Feature.TEXT})
    precision: Precision | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance as the router sees it. None is what cannot be told.

    Attributes:
        why_not_ready: its state and reason where it does not answer now; None where it does.
        bits_per_weight: what a weight takes in memory.
        kv_used: share of its KV cache that is reserved.
        ttft_p95_s: of its recent requests.
    """

    name: str
    is_remote: bool = False
    why_not_ready: str | None = None
    context_length: int | None = None
    features: frozenset[Feature] = frozenset({Feature.TEXT})
    bits_per_weight: float | None = None
    num_running: int = 0
    num_waiting: int = 0
    max_running: int | None = None
    max_waiting: int | None = None
    kv_used: float | None = None
    ttft_p95_s: float | None = None
    breaker: Breaker = field(default_factory=Breaker)
