"""Forward passes for models that cannot be run packed: state-space models, hybrids, positions within attention.

Each request is run by itself, with the model's own attention and its own cache, as `generate` does it: transformers'
`DynamicCache` made from the config, or where a model has a class of its own, what a call without one gives back as
`past_key_values`, `cache_params` or `state`. A state cannot be cut, so beginnings of prompts are not shared.
"""

from __future__ import annotations

import inspect
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import DynamicCache

from engine.inference import attention
from engine.inference.forward import Part, headless
from engine.models.loader import LoadedModel
from engine.models.spec import Passes

_CACHE_NAMES = ("past_key_values", "cache_params", "state")


class OwnCache:
    """What the model keeps of one request, by the names of its arguments; and tokens that wait to be run.

    Attributes:
        num_run: tokens that went into it.
        held_ids: a prompt's, until it is run whole.
    """

    def __init__(self, kept: dict[str, Any]) -> None:
        self.num_run = 0
        self.held_ids: list[int] = []
        self._kept = kept

    def reserve(self, length: int, limit: int) -> None:
        """It grows by itself."""

    @property
    def arguments(self) -> dict[str, Any]:
        """What a call of the model goes on from."""
        return self._kept

    def take(self, output: Any) -> None:
        """Keep what a call of the model gave back, where it did.

        Raises:
            ValueError: there is nothing to go on from.
        """
        self._kept |= {name: output[name] for name in _CACHE_NAMES if getattr(output, name, None) is not None}
        if not self._kept:
            raise ValueError("the model keeps nothing between two passes")

    @property
    def num_bytes(self) -> int:
        """What its tensors take."""
        return sum(tensor.nbytes for tensor in _tensors(list(self._kept.values())))


class Separate:
    """One pass for each part."""

    def __init__(self, loaded: LoadedModel) -> None:
        attention.use(loaded.model, attention.REFERENCE)
        self._model = loaded.model
        self._loaded = loaded
        self._base = headless(loaded.model)
        self._names = _argument_names(loaded.model)
        self._base_names = _argument_names(self._base)
        self._are_prompts_whole = loaded.passes is Passes.WHOLE_PROMPTS

    @property
    def name(self) -> str:
        return "requests one by one"

    @property
    def held_tokens(self) -> int:
        return 0

    def stepping(self) -> AbstractContextManager[None]:
        return nullcontext()

    def new_cache(self, _num_tokens: int, _most: int) -> OwnCache:
        if not self._model._supports_default_dynamic_cache():
            return OwnCache({})
        name = next((name for name in _CACHE_NAMES if name in self._names), _CACHE_NAMES[0])
        return OwnCache({name: DynamicCache(config=self._model.config.get_text_config(decoder=True))})

    @property
    def can_repeat(self) -> bool:
        return False

    @property
    def runs_ahead(self) -> bool:
        return False

    def logits(self, parts: Sequence[Part], _chosen: torch.Tensor | None = None) -> torch.Tensor:
        return torch.cat([self._logits(part) for part in parts])

    def mark(self) -> None:
        return None

    def _logits(self, part: Part) -> torch.Tensor:
        cache: OwnCache = part.cache
        if self._are_prompts_whole and not part.num_logits:
            cache.held_ids.extend(part.token_ids)
            return torch.empty(0, self._loaded.info.vocab_size, device=self._loaded.cache_shape.device)
        ids, cache.held_ids = [*cache.held_ids, *part.token_ids], []
        options = {"logits_to_keep": max(1, part.num_logits)} if "logits_to_keep" in self._names else {}  # 0 keeps all
        logits: torch.Tensor = self._run(self._model, self._names, ids, cache, options).logits[0]
        return logits[len(logits) - part.num_logits :]

    def hidden(self, parts: Sequence[Part]) -> torch.Tensor:
        return torch.cat(
            [self._hidden(part.token_ids[at:stop], part) for part in parts for at, stop in self._cuts(part)]
        )

    def _cuts(self, part: Part) -> Iterator[tuple[int, int]]:
        """A text that is cut has to be gone on with by single tokens, where its model can do no more."""
        size = 1 if self._are_prompts_whole and part.past else len(part.token_ids)
        yield from ((at, at + size) for at in range(0, len(part.token_ids), size))

    def _hidden(self, ids: Sequence[int], part: Part) -> torch.Tensor:
        output = self._run(self._base, self._base_names, ids, part.cache, {})
        hidden: torch.Tensor = output.last_hidden_state[0]
        return hidden

    def _run(
        self, model: Any, names: Container[str], ids: Sequence[int], cache: OwnCache, options: dict[str, Any]
    ) -> Any:
        """Positions are told wherever they can be: some models count those of a cache by a layer that keeps none."""
        rows = torch.tensor([list(ids)], device=self._loaded.cache_shape.device)
        if "position_ids" in names:
            options = {**options, "position_ids": torch.arange(len(ids), device=rows.device)[None] + cache.num_run}
        output = model(input_ids=rows, use_cache=True, **cache.arguments, **options)
        cache.take(output)
        cache.num_run += len(ids)
        return output


def _argument_names(model: Any) -> frozenset[str]:
    return frozenset(inspect.signature(model.forward).parameters)


def _tensors(kept: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The tensors within a cache, whatever its class: in lists, in its attributes and in those of its layers."""
    for value in kept:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif hasattr(value, "__dict__"):
            yield from _tensors(vars(value).values())
