"""Which requests have one answer, and the digest under which that is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from dataclasses import fields, replace

from engine.inference.request import Request, SamplingParams

# What does not change the answer. A field that requests get later does until it is named here.
_IGNORED = frozenset({"request_id", "source", "timeout_s", "priority", "max_queue_s", "is_cacheable", "trace_parent"})
_FIELDS = tuple(field.name for field in fields(Request) if field.name not in _IGNORED)
_SAMPLING = tuple(field.name for field in fields(SamplingParams))


def is_deterministic(request: Request) -> bool:
    """Whether the same request gets the same answer: it is greedy, or its seed is given."""
    return request.sampling.temperature == 0 or request.sampling.seed is not None


def answer_key(request: Request, identity: Hashable) -> bytes:
    """A digest of who asks (`key_id`), of all that changes the answer, and of what stands behind the model's name:
    `identity`, as `Directory.identity` has it."""
    said = [getattr(request, name) for name in _FIELDS if name != "sampling"]
    return _digest((identity, said, _sampling_of(request.sampling)))


def run_key(request: Request, key: bytes) -> bytes:
    """A digest of what has to be equal for two requests of one answer's `key` to share a run: their bounds too."""
    return _digest((key, request.timeout_s, request.priority, request.max_queue_s))


def _sampling_of(sampling: SamplingParams) -> list[object]:
    """Greedy answers do not depend on the seed; the order of biases means nothing."""
    plain = replace(sampling, seed=None) if sampling.temperature == 0 else sampling
    values = {name: getattr(plain, name) for name in _SAMPLING}
    values["logit_bias"] = sorted(plain.logit_bias.items())
    return list(values.values())


def _digest(value: object) -> bytes:
    """`repr` tells apart whatever differs in plain data, and a lone surrogate must not break it off."""
    return hashlib.sha256(repr(value).encode("utf-8", "surrogatepass")).digest()
