"""How large each layer's activations become on given prompts, for static INT8.

torchao's own SmoothQuant (a prototype) hands its factors to a tensor whose CPU path is several times slower than
what this engine multiplies with, and transformers does not list activation scales among what it reloads; so the
factors are measured here and go into `Int8Product`. The formula is that of SmoothQuant (Xiao et al. 2023, eq. 4)
with alpha 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

BUNDLED_PROMPTS = (
    "What is the capital of France, and what is it known for?",
    "Write a short note to a colleague who is ill today, and wish them well.",
    "List five things to check before a long journey by car.",
    "def mean(values):\n    return sum(values) / len(values)\n\nExplain this function and its one error.",
    "A train leaves at 9:40 and arrives at 12:05. How long does the journey take? Show each step.",
    "Es regnet seit drei Tagen. Translate this into English, French and Spanish.",
)
_MAX_TOKENS = 512
_TINY = 1e-5
# Beyond this ratio of the largest value to a typical row's largest, one step for all rows leaves the typical ones
# a few integers each (the first token of many models is such an outlier before `down_proj`).
_MOST_UNEVEN = 4.0


@dataclass(slots=True)
class Inputs:
    """What a layer was given: `largest` absolute value a channel, and the rows' own largest, summed."""

    largest: torch.Tensor
    sum_of_rows: float = 0.0
    num_rows: int = 0

    @property
    def is_even(self) -> bool:
        """Whether one scale serves all rows."""
        return float(self.largest.amax()) <= _MOST_UNEVEN * self.sum_of_rows / max(self.num_rows, 1)

    def add(self, rows: torch.Tensor) -> None:
        """Take (n, channels) in."""
        absolute = rows.abs()
        self.largest = torch.maximum(self.largest, absolute.amax(dim=0))
        self.sum_of_rows += float(absolute.amax(dim=1).sum())
        self.num_rows += len(rows)


@torch.no_grad()
def measure_inputs(
    model: Any, tokenizer: Any, names: Sequence[str], prompts: Sequence[str], on_step: Callable[[float], None]
) -> dict[str, Inputs]:
    """What the linear layers `names` are given over all prompts (the first 512 tokens of each). `on_step(fraction)` is
    called after each prompt."""
    found: dict[str, Inputs] = {}
    texts = [text for text in prompts if text.strip()] or list(BUNDLED_PROMPTS)
    with ExitStack() as hooks:
        for name in names:
            handle = model.get_submodule(name).register_forward_pre_hook(_recorder(name, found))
            hooks.callback(handle.remove)
        for index, text in enumerate(texts):
            ids = tokenizer(_as_chat(tokenizer, text), return_tensors="pt")["input_ids"][:, :_MAX_TOKENS].to(
                model.device
            )
            if ids.numel():
                model(input_ids=ids, use_cache=False)
            on_step((index + 1) / len(texts))
    return found


def _as_chat(tokenizer: Any, text: str) -> str:
    """The prompt as the model will see it."""
    if not tokenizer.chat_template:
        return text
    conversation = [{"role": "user", "content": text}]
    rendered: str = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    return rendered


def _recorder(name: str, found: dict[str, Inputs]) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def record(_module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        rows = inputs[0].detach().float().reshape(-1, inputs[0].shape[-1])
        found.setdefault(name, Inputs(torch.zeros_like(rows[0]))).add(rows)

    return record


def smoothing_factors(largest_input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What divides each input channel and multiplies its column of the weight: sqrt(largest input / largest weight),
    so that neither side alone has the outliers."""
    largest_weight = weight.float().abs().amax(dim=0)
    return (largest_input.clamp_min(_TINY) / largest_weight.clamp_min(_TINY)).sqrt().clamp_min(_TINY)
