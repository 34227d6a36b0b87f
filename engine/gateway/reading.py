"""Instances and requests as the router sees them."""

from __future__ import annotations

from engine.gateway.standings import Recent
from engine.inference.request import Message, Request
from engine.instance import InstanceInfo, InstanceState
from engine.models.spec import ModelInfo
from engine.remote import RemoteInfo
from engine.scheduling.router import Ask, Breaker, Candidate, Feature, Precision

# No tokenizer makes fewer tokens of a text than this leaves: a router that counted more closely would have to tokenize.
_MOST_BYTES_PER_TOKEN = 12
_ENGINE_FEATURES = (Feature.TEXT, Feature.STRUCTURED_OUTPUT, Feature.TOOLS)


def to_ask(request: Request, precision: Precision | None, key: str) -> Ask:
    """What the router needs to know of a request."""
    return Ask(
        model=request.model,
        num_prompt_tokens=_fewest_tokens(request),
        max_tokens=request.sampling.max_tokens,
        features=features_of(request),
        precision=precision,
        key=key,
    )


def features_of(request: Request) -> frozenset[Feature]:
    """What it needs of an instance."""
    asked = {
        Feature.TEXT: True,
        Feature.STRUCTURED_OUTPUT: request.constraint is not None,
        Feature.TOOLS: request.tools is not None,
        Feature.IMAGES: bool(request.images),
    }
    return frozenset(feature for feature, is_asked in asked.items() if is_asked)


def turns_of(request: Request) -> list[tuple[str, str]]:
    """Its (role, content) turns, pictures by their digests; a plain prompt is one."""
    if request.prompt is None:
        return [(message.role, "\n".join((*message.texts(), *_digests(message)))) for message in request.messages]
    return [("", request.prompt if isinstance(request.prompt, str) else repr(request.prompt))]


def _digests(message: Message) -> list[str]:
    return [image.sha256 for image in message.images]


def _fewest_tokens(request: Request) -> int:
    if isinstance(request.prompt, tuple):
        return len(request.prompt)
    texts = turns_of(request) if request.prompt is not None else [("", "\n".join(m.texts())) for m in request.messages]
    num_bytes = sum(len(content.encode()) for _, content in texts)
    return max(1, num_bytes // _MOST_BYTES_PER_TOKEN + len(request.images))


def local_candidate(info: InstanceInfo, recent: Recent, breaker: Breaker) -> Candidate:
    """A local instance."""
    stats = info.stats
    return Candidate(
        name=info.name,
        why_not_ready=_why_not_ready(info.state, info.reason),
        context_length=None if info.model is None else info.model.context_length,
        features=_local_features(info.model),
        bits_per_weight=_bits_per_weight(info.model),
        num_running=0 if stats is None else stats.num_running,
        num_waiting=0 if stats is None else stats.num_waiting,
        max_running=None if stats is None else stats.max_running,
        max_waiting=None if stats is None else stats.max_waiting,
        kv_used=None if stats is None else stats.cache_tokens_reserved / max(stats.cache_tokens_total, 1),
        ttft_p95_s=recent.ttft_p95_s,
        breaker=breaker,
    )


def remote_candidate(info: RemoteInfo, recent: Recent, breaker: Breaker) -> Candidate:
    """A remote instance; of its load only what was sent from here is known."""
    return Candidate(
        name=info.name,
        is_remote=True,
        why_not_ready=_why_not_ready(info.state, info.reason),
        context_length=info.context_length,
        features=info.spec.features,
        bits_per_weight=info.spec.bits_per_weight,
        num_running=info.num_running,
        max_running=info.spec.max_running,
        max_waiting=0,
        ttft_p95_s=recent.ttft_p95_s,
        breaker=breaker,
    )


def _why_not_ready(state: InstanceState, reason: str | None) -> str | None:
    if state is InstanceState.READY:
        return None
    return f"it is {state}: {reason}" if reason else f"it is {state}"


def _local_features(model: ModelInfo | None) -> frozenset[Feature]:
    """Grammars and calls are this engine's to write, whatever the model."""
    served = () if model is None else model.served
    return frozenset({*_ENGINE_FEATURES, *(Feature(modality.value) for modality in served)})


def _bits_per_weight(model: ModelInfo | None) -> float | None:
    return None if model is None or not model.num_parameters else model.weights_bytes * 8 / model.num_parameters
