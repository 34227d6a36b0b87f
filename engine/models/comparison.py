"""How far a memory plan was off: planned beside measured. Without torch, for pages too."""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.plan import MemoryPlan
from engine.models.run_lines import CACHE_ROUNDING_TOKENS, RUNTIME_BYTES

WEIGHTS, PROCESS = "weights", "the process"
# An error below this is none: rotary tables and alignment.
_NEGLIGIBLE = 0.005
_WHY_MORE = {
    WEIGHTS: "tensors that the headers do not show, such as tables that are made while loading",
    PROCESS: "a larger tokenizer, buffers of the libraries, or free memory that the allocator keeps",
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Memory of a loaded model.

    Attributes:
        weights_bytes: parameters, buffers and packed copies, shared storage once.
        cache_tokens: capacity of the caches that were given; `cache_bytes` what they take.
        process_bytes: by how much the memory of the process on that device grew since `mark_memory`. On a CPU as the
            system counts pages that belong to no file, and the weights that are pages of their file; on a GPU as
            torch's allocator counts. None without a mark.
    """

    device: str
    weights_bytes: int
    cache_tokens: int
    cache_bytes: int
    process_bytes: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One planned number beside the measured one."""

    what: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def error_ratio(self) -> float | None:
        """(predicted - measured) / measured: above 0 the plan asked for too much. None where nothing was measured."""
        if self.measured_bytes == 0:
            return None
        return (self.predicted_bytes - self.measured_bytes) / self.measured_bytes


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Planned and measured memory of one instance, as it was when it was warm and had no request yet.

    Attributes:
        rows: planned beside measured; none where there is no plan.
        untold: what could not be told and why, a sentence each.
    """

    measured: Measured
    rows: tuple[Comparison, ...]
    untold: tuple[str, ...] = ()


def meaning(row: Comparison) -> str:
    """What the difference of a row means, in a few words."""
    ratio, difference = row.error_ratio, abs(row.predicted_bytes - row.measured_bytes)
    if ratio is None:
        return "not measured"
    if abs(ratio) < _NEGLIGIBLE:
        return "as planned"
    megabytes = f"{difference / 1e6:,.1f} MB"
    if ratio > 0:
        return f"{megabytes} less than planned: they stay free"
    return f"{megabytes} more than planned: {_WHY_MORE.get(row.what, 'the plan was too small')}"


def compare_at_rest(plan: MemoryPlan, measured: Measured) -> tuple[Comparison, ...]:
    """Planned beside measured of an instance that runs nothing: its weights, and all that the process grew by, where
    that was measured. On a GPU torch's allocator sees tensors alone, a pool of caches among them."""
    rows = [Comparison(WEIGHTS, plan.weights_bytes, measured.weights_bytes)]
    if measured.process_bytes is not None:
        rest = (RUNTIME_BYTES if plan.placement.is_cpu else 0) + planned_cache_bytes(plan, measured.cache_tokens)
        rows.append(Comparison(PROCESS, plan.weights_bytes + rest, measured.process_bytes))
    return tuple(rows)


def compare(plan: MemoryPlan, measured: Measured) -> tuple[Comparison, ...]:
    """Planned beside measured: weights; caches, as many as there were; both; and both in the process's growth, where
    that was measured."""
    cache_bytes = planned_cache_bytes(plan, measured.cache_tokens)
    both = plan.weights_bytes + cache_bytes
    rows = [
        Comparison(WEIGHTS, plan.weights_bytes, measured.weights_bytes),
        Comparison("KV cache", cache_bytes, measured.cache_bytes),
        Comparison("weights and KV cache", both, measured.weights_bytes + measured.cache_bytes),
    ]
    if measured.process_bytes is not None:
        rows.append(Comparison("weights and KV cache, by the process", both, measured.process_bytes))
    return tuple(rows)


def planned_cache_bytes(plan: MemoryPlan, num_tokens: int) -> int:
    """What the plan says caches of so many tokens in all take."""
    capacity = -(-num_tokens // CACHE_ROUNDING_TOKENS) * CACHE_ROUNDING_TOKENS
    return capacity * plan.cache_bytes_per_token
