"""Will a model fit, before anything of it is loaded; if not as asked, how.

Pure functions of a footprint (from headers), a spec, the free memory and a demand; `plan_source` reads what they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from engine.errors import WeightsError
from engine.inference.compiled import DTYPES
from engine.inference.llama_shaped import ARCHITECTURES
from engine.models.architecture import CONSOLE_QUANTIZATION, Architecture, gguf_name
from engine.models.attention_lines import attention_lines
from engine.models.budget import Budget
from engine.models.footprint import Footprint, preview_footprint, read_footprint, read_gguf_footprint
from engine.models.memory import SHARE_OF_FREE
from engine.models.run_lines import (
    CACHE_ROUNDING_TOKENS,
    Demand,
    cache_bytes_per_token,
    cache_line,
    loading_lines,
    working_lines,
)
from engine.models.schemes import default_quantization, explain
from engine.models.spec import ModelSpec, Scheme, resolve_attention
from engine.models.weight_lines import ITEM_BYTES, Kind, Line, Placement, total_bytes, weight_lines
from engine.weights.preview import Preview
from engine.weights.sources import HubId, Source, find_source

# Less context than this is of no use.
_LEAST_CONTEXT_TOKENS = 256


class Verdict(StrEnum):
    """The answer, in words that follow the model's name."""

    FITS = "fits"
    FITS_BFLOAT16 = "fits with bfloat16 weights"
    FITS_INT8 = "fits with int8 weights"
    FITS_INT4 = "fits with int4 weights"
    FITS_CONTEXT = "fits at a shorter context"
    FITS_CONCURRENCY = "fits with fewer requests at once"
    FITS_REDUCED = "fits with several changes"
    DOES_NOT_FIT = "does not fit"


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to load the model otherwise, and what it would take; `reasons` say why it does not fit, none that it
    does."""

    verdict: Verdict
    change: str
    spec: ModelSpec
    demand: Demand
    needed_bytes: int
    reasons: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.reasons


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a model will take and whether it fits.

    Attributes:
        reasons: why it does not fit as asked; empty when it does.
        notes: what the reader should know of the numbers.
        lines: what is held while all requests of the demand run.
        loading: what is held at the peak of loading.
        cache_limit_bytes: the most that caches may take after loading.
        alternatives: other ways to load it, the gentlest first; empty where it fits as asked.
    """

    name: str
    architecture: str
    verdict: Verdict
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    spec: ModelSpec
    placement: Placement
    demand: Demand
    budget: Budget
    num_parameters: int
    cache_bytes_per_token: int
    cache_limit_bytes: int
    lines: tuple[Line, ...]
    loading: tuple[Line, ...]
    alternatives: tuple[Alternative, ...] = ()

    @property
    def weights_bytes(self) -> int:
        return total_bytes(self.lines, Kind.WEIGHTS)

    @property
    def cache_bytes(self) -> int:
        return total_bytes(self.lines, Kind.CACHE)

    @property
    def steady_bytes(self) -> int:
        return total_bytes(self.lines)

    @property
    def loading_bytes(self) -> int:
        return total_bytes(self.loading)

    @property
    def needed_bytes(self) -> int:
        """The larger of serving and the peak of loading."""
        return max(self.steady_bytes, self.loading_bytes)


def plan_memory(footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand | None = None) -> MemoryPlan:
    """Plan `spec` on the device of `budget`. Without a demand: one request of the whole context, or what the spec
    says of both.

    Raises:
        WeightsError: the config names no context length, or the spec an attention that the engine has not.
    """
    asked = demand or default_demand(footprint, spec)
    plan = _plan_as_asked(footprint, spec, budget, asked)
    if not plan.reasons:
        return plan
    alternatives = tuple(_alternatives(footprint, spec, budget, asked))
    verdict = next((item.verdict for item in alternatives if item.fits), Verdict.DOES_NOT_FIT)
    return replace(plan, verdict=verdict, alternatives=alternatives)


def default_demand(footprint: Footprint, spec: ModelSpec) -> Demand:
    """The spec's context and concurrency, else the model's bound and one request.

    Raises:
        WeightsError: neither names a context length.
    """
    context = spec.context_length or footprint.architecture.context_length
    if context is None:
        raise WeightsError("the model's config names no context length (max_position_embeddings): ask for one")
    return Demand(context, spec.max_running or 1)


def plan_source(
    spec: ModelSpec,
    budget: Budget,
    demand: Demand | None = None,
    converted: Callable[[Path], Path | None] | None = None,
    find: Callable[[str], Source] = find_source,
    preview: Callable[[HubId], Preview] | None = None,
) -> MemoryPlan:
    """Plan the model that `spec.source` names, from its headers; nothing is converted or loaded.

    Args:
        converted: the folder that a GGUF file was unpacked to, None where it was not yet. Without it the plan counts
            the unpacking.
        find: where the source's files are; one that knows the weights cache finds models of the hub there.
        preview: reads the headers of a model that `find` leaves at the hub; without it such a model is refused.

    Raises:
        WeightsError: nothing is there, the files are damaged, or they lie at the hub and cannot be looked at.
    """
    source = find(spec.source)
    footprint = _read(source, converted, preview)
    return replace(plan_memory(footprint, spec, budget, demand), name=spec.name or source.name)


def _read(
    source: Source,
    converted: Callable[[Path], Path | None] | None,
    preview: Callable[[HubId], Preview] | None,
) -> Footprint:
    if source.folder is not None:
        return read_footprint(source.folder)
    if source.hub is not None and preview is not None:
        return preview_footprint(preview(source.hub))
    if source.gguf_file is None:
        raise WeightsError(f"{source.name} is not on this machine yet: fetch it, then its memory can be planned")
    is_converted = converted is not None and converted(source.gguf_file) is not None
    return replace(read_gguf_footprint(source.gguf_file), is_converted=is_converted)


def _plan_as_asked(footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand) -> MemoryPlan:
    """The plan of exactly this, with its reasons and without alternatives."""
    placement = resolve_placement(spec, budget, footprint.architecture)
    shape = footprint.architecture
    weights = weight_lines(footprint, placement)
    caches = cache_line(shape, placement, demand)
    kernel = resolve_attention(spec.attention)
    working = (
        *working_lines(footprint, placement, demand, budget.chunk_tokens, has_framework=budget.has_framework),
        *attention_lines(shape, placement, demand, budget.chunk_tokens, kernel),
    )
    framework = total_bytes(working, Kind.FRAMEWORK)
    plan = MemoryPlan(
        name=spec.name or spec.source,
        architecture=shape.name,
        verdict=Verdict.FITS,
        reasons=(),
        notes=_notes(footprint, placement, demand),
        spec=spec,
        placement=placement,
        demand=demand,
        budget=budget,
        num_parameters=footprint.num_parameters,
        cache_bytes_per_token=cache_bytes_per_token(shape, placement),
        cache_limit_bytes=budget.cache_limit_bytes(budget.free_bytes - total_bytes(weights) - framework),
        lines=(*weights, caches, *working),
        loading=loading_lines(footprint, placement, has_framework=budget.has_framework),
    )
    reasons = tuple(_reasons(plan))
    return replace(plan, reasons=reasons, verdict=Verdict.DOES_NOT_FIT) if reasons else plan


def resolve_placement(spec: ModelSpec, budget: Budget, architecture: Architecture) -> Placement:
    """Where and as what the weights will be, as the loader resolves `auto`; what the console saved quantized keeps
    the dtype it had."""
    dtype = spec.dtype
    if dtype == "auto":
        dtype = "float32" if budget.device_type == "cpu" else "bfloat16"
        if architecture.quant_method == CONSOLE_QUANTIZATION and architecture.dtype in ITEM_BYTES:
            return Placement(budget.device, architecture.dtype, spec.quantization)
    kind = architecture.model_type
    is_known = architecture.name in (ARCHITECTURES.get(kind), gguf_name(kind)) and kind in ARCHITECTURES
    is_eager = resolve_attention(spec.attention) == "eager"
    is_compiled = budget.can_compile and dtype in DTYPES and is_known and not is_eager
    return Placement(budget.device, dtype, spec.quantization, is_compiled)


def _reasons(plan: MemoryPlan) -> Iterator[str]:
    free = plan.budget.free_bytes
    if plan.spec.quantization is not None:
        yield from explain(plan.spec.quantization, plan.budget.ability)
    if plan.loading_bytes > free:
        yield f"loading takes {gigabytes(plan.loading_bytes)} at its peak, {gigabytes(free)} are free"
    if plan.steady_bytes > free:
        yield f"serving takes {gigabytes(plan.steady_bytes)}, {gigabytes(free)} are free"
    reserved = plan.demand.concurrency * plan.demand.context_tokens * plan.cache_bytes_per_token
    if reserved > plan.cache_limit_bytes:
        share = SHARE_OF_FREE[plan.budget.device_type]
        asked = plan.budget.kv_cache_gib is not None
        kept = (
            "CONSOLE_KV_CACHE_GIB" if asked else f"{share:.0%} of what is free after loading; see CONSOLE_KV_CACHE_GIB"
        )
        yield f"KV caches take {gigabytes(reserved)}, {gigabytes(plan.cache_limit_bytes)} are kept for them ({kept})"


def _notes(footprint: Footprint, placement: Placement, demand: Demand) -> tuple[str, ...]:
    shape = footprint.architecture
    notes = []
    if shape.context_length is not None and demand.context_tokens > shape.context_length:
        notes.append(
            f"the model's context ends at {shape.context_length:,} tokens; {demand.context_tokens:,} are asked"
        )
    if shape.latent_width is not None:
        latent = shape.num_layers * shape.latent_width * placement.item_bytes
        notes.append(
            f"its attention could keep {latent:,} B a token in compressed form; the engine counts it expanded, and "
            "refuses attention it cannot reproduce"
        )
    if shape.sliding_window is not None:
        notes.append(f"caches are whole although layers look back {shape.sliding_window:,} tokens only")
    if shape.num_experts and placement.quantization is not None:
        notes.append("experts are no linear layers to the quantization and keep the model's dtype")
    if shape.quant_method is not None:
        notes.append(f"the checkpoint is quantized already ({shape.quant_method}): counted as stored")
    return tuple(notes)


def _alternatives(footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand) -> Iterator[Alternative]:
    """Smaller weights, then fewer requests, then less context; where none of them is enough, all of them."""
    has_fitted = False
    for verdict, other, changed in _single_changes(footprint, spec, budget, demand):
        plan = _plan_as_asked(footprint, other, budget, changed)
        has_fitted = has_fitted or not plan.reasons
        yield Alternative(verdict, _change(plan, spec, demand), other, changed, plan.needed_bytes, plan.reasons)
    if has_fitted:
        return
    for _, other in reversed([*_smaller_specs(footprint, spec, budget)]):
        least = largest_context(footprint, other, budget, replace(demand, concurrency=1))
        if least is not None:
            other = replace(other, context_length=least.context_tokens)
            plan = _plan_as_asked(footprint, other, budget, least)
            change = _change(plan, spec, demand)
            yield Alternative(Verdict.FITS_REDUCED, change, other, least, plan.needed_bytes, plan.reasons)
            return


def _single_changes(
    footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand
) -> Iterator[tuple[Verdict, ModelSpec, Demand]]:
    for verdict, other in _smaller_specs(footprint, spec, budget):
        yield verdict, other, demand
    if (fewer := largest_concurrency(footprint, spec, budget, demand)) is not None:
        yield Verdict.FITS_CONCURRENCY, replace(spec, max_running=fewer.concurrency), fewer
    if (shorter := largest_context(footprint, spec, budget, demand)) is not None:
        yield Verdict.FITS_CONTEXT, replace(spec, context_length=shorter.context_tokens), shorter


def _change(plan: MemoryPlan, spec: ModelSpec, demand: Demand) -> str:
    """How `plan` differs from what was asked for."""
    placement = plan.placement
    changes = []
    if (plan.spec.dtype, plan.spec.quantization) != (spec.dtype, spec.quantization):
        scheme = f" with {placement.quantization.scheme}" if placement.quantization is not None else ""
        changes.append(f"{placement.dtype}{scheme}")
    if plan.demand.concurrency != demand.concurrency:
        changes.append(f"{plan.demand.concurrency} instead of {demand.concurrency} requests at once")
    if plan.demand.context_tokens != demand.context_tokens:
        changes.append(f"{plan.demand.context_tokens:,} instead of {demand.context_tokens:,} tokens of context")
    return ", ".join(changes)


def _smaller_specs(footprint: Footprint, spec: ModelSpec, budget: Budget) -> Iterator[tuple[Verdict, ModelSpec]]:
    quantization = spec.quantization
    scheme = quantization.scheme if quantization is not None else None
    if footprint.architecture.quant_method is not None:
        return
    if resolve_placement(spec, budget, footprint.architecture).dtype == "float32":
        spec = replace(spec, dtype="bfloat16")
        yield Verdict.FITS_BFLOAT16, spec
    if quantization is None or explain(quantization, budget.ability):
        yield Verdict.FITS_INT8, replace(spec, quantization=default_quantization(Scheme.INT8_WEIGHT, budget.ability))
    if scheme is not Scheme.INT4_WEIGHT:
        yield Verdict.FITS_INT4, replace(spec, quantization=default_quantization(Scheme.INT4_WEIGHT, budget.ability))


def largest_context(footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand) -> Demand | None:
    """The longest context that fits at the demand's concurrency, no longer than asked; None where none of use does."""
    steps = range(_LEAST_CONTEXT_TOKENS // CACHE_ROUNDING_TOKENS, demand.context_tokens // CACHE_ROUNDING_TOKENS + 1)
    options = [step * CACHE_ROUNDING_TOKENS for step in steps]
    return _largest(footprint, spec, budget, options, lambda size: replace(demand, context_tokens=size))


def largest_concurrency(footprint: Footprint, spec: ModelSpec, budget: Budget, demand: Demand) -> Demand | None:
    """The most requests of the demand's context that fit together, no more than asked; None where not even one."""
    options = range(1, demand.concurrency + 1)
    return _largest(footprint, spec, budget, options, lambda size: replace(demand, concurrency=size))


def _largest(
    footprint: Footprint,
    spec: ModelSpec,
    budget: Budget,
    options: range | list[int],
    demand_for: Callable[[int], Demand],
) -> Demand | None:
    """The last of rising `options` that fits, by halving: what is needed grows with them."""
    low, high = 0, len(options)
    while low < high:
        middle = (low + high) // 2
        if _plan_as_asked(footprint, spec, budget, demand_for(options[middle])).reasons:
            high = middle
        else:
            low = middle + 1
    return demand_for(options[low - 1]) if low else None


def gigabytes(num_bytes: int) -> str:
    """Decimal, as the pages have them."""
    return f"{num_bytes / 1e9:.2f} GB"
