"""The seam between the step loop and what computes: tokens of many requests in, logits or hidden states out.

`Packed` runs all of a step as one row of tokens with attention of our own (attention.py); on a GPU `Pooled`
(pooled_forward.py) does so with one kernel for all requests and CUDA graphs. `Separate` (separate_forward.py) runs the
models that neither can be done with. Which one a model has is found out when it is loaded (parity.py), and nothing
above this seam knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from engine.inference import attention
from engine.inference.image_prompt import ImagePrompt
from engine.inference.upload import upload
from engine.models.loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Part:
    """What one request adds to a step.

    Attributes:
        cache: of the request, as the same forward's `new_cache` gave it, with room for `past` and `token_ids`.
        token_ids: its next tokens, to be run after the `past` ones that the cache holds. Empty where there is one,
            whose id only the device knows.
        images: those of the prompt they are of.
        num_logits: of how many of its last tokens logits are wanted; 0 for a piece of a prompt that is not its last.
    """

    cache: Any
    token_ids: Sequence[int]
    past: int
    images: ImagePrompt | None = None
    num_logits: int = 1

    @property
    def is_known(self) -> bool:
        """Whether the ids of its tokens are known here."""
        return len(self.token_ids) > 0


class Forward(Protocol):
    """Runs the forward passes of one model, on one thread at a time. The caches hold the tokens of the parts
    afterwards.

    Attributes:
        held_tokens: of caches, for which memory is taken whether requests use it or not.
        name: how it runs them, in words.
        can_repeat: whether a step that failed for want of memory can be run again, as its passes changed nothing but
            places that they write anew.
        runs_ahead: whether the device computes while the caller goes on, so that it gains by being handed the next step
            before the last one is known here.
    """

    @property
    def name(self) -> str: ...

    @property
    def held_tokens(self) -> int: ...

    @property
    def can_repeat(self) -> bool: ...

    @property
    def runs_ahead(self) -> bool: ...

    def new_cache(self, num_tokens: int, most: int) -> Any:
        """An empty cache of one request, with room for `num_tokens` and, once asked, for `most`. It has
        `reserve(length, limit)`; whoever has it drops it by letting go of it.

        Raises:
            torch.OutOfMemoryError: the device has no room for it.
        """

    def stepping(self) -> AbstractContextManager[None]:
        """What is around a step of requests: its pass, and the choice of its tokens."""

    def logits(self, parts: Sequence[Part], chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Of the last tokens of each part, as many as it wants, in their order, (number of them, vocab). `chosen` are
        the ids on the device of the parts that are not known here, in their order."""

    def mark(self) -> torch.cuda.Event | None:
        """What tells when the device has done all it was given until now; None where it has."""

    def hidden(self, parts: Sequence[Part]) -> torch.Tensor:
        """After the last layer's norm, of all tokens of all parts, (tokens, width)."""


class Packed:
    """All parts in one pass of the model, as one row of tokens. `why_not_faster` says why nothing faster does it."""

    def __init__(self, loaded: LoadedModel, why_not_faster: str | None = None) -> None:
        attention.use(loaded.model, attention.NAME)
        self._why_not_faster = why_not_faster
        self._model = loaded.model
        self._shape = loaded.cache_shape

    @property
    def name(self) -> str:
        name = "all requests in one pass, attention one by one"
        return name if self._why_not_faster is None else f"{name}; {self._why_not_faster}"

    @property
    def held_tokens(self) -> int:
        return 0

    def new_cache(self, num_tokens: int, _most: int) -> attention.Cache:
        return attention.SequenceCache(self._shape, num_tokens)

    @property
    def can_repeat(self) -> bool:
        return True

    @property
    def runs_ahead(self) -> bool:
        return self._shape.device.type == "cuda"

    def stepping(self) -> AbstractContextManager[None]:
        return nullcontext()

    def logits(self, parts: Sequence[Part], chosen: torch.Tensor | None = None) -> torch.Tensor:
        packed = attention.PackedInput(chosen)
        wanted: list[int] = []
        for part in parts:
            packed.add(part.cache, part.token_ids, part.past, part.images)
            wanted.extend(range(len(packed) - part.num_logits, len(packed)))
        return self._run(packed, upload(torch.tensor(wanted, dtype=torch.long), self._shape.device))

    def mark(self) -> torch.cuda.Event | None:
        if self._shape.device.type != "cuda":
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def _run(self, packed: attention.PackedInput, wanted: torch.Tensor) -> torch.Tensor:
        """Logits of the rows at `wanted`."""
        arguments = packed.arguments(self._model, self._shape.device)
        logits: torch.Tensor = self._model(**arguments, logits_to_keep=wanted).logits[0]
        return logits

    def hidden(self, parts: Sequence[Part]) -> torch.Tensor:
        packed = attention.PackedInput()
        for part in parts:
            packed.add(part.cache, part.token_ids, part.past)
        model = headless(self._model)
        hidden: torch.Tensor = model(**packed.arguments(model, self._shape.device)).last_hidden_state[0]
        return hidden


def headless(model: Any) -> Any:
    """What gives hidden states instead of logits. Llama 4, with images or without, does not find its own."""
    return model.base_model if model.base_model is not model else model.get_decoder().model
