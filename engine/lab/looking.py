"""Looking whether to go on, in the middle of what takes long: on a busy machine one forward pass takes many seconds.

A torch function mode sees every operation of its thread and costs microseconds each, so it is for what is not timed to
the millisecond. Hooks before the layers cost next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

Check = Callable[[], None]


class LookingAtEachOperation(TorchFunctionMode):
    """Within this context `check` is called before every torch operation of this thread; it may raise."""

    def __init__(self, check: Check) -> None:
        super().__init__()
        self._check = check

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look, then do it."""
        self._check()
        return func(*args, **(kwargs or {}))


@contextmanager
def looking_at_each_layer(model: nn.Module, check: Check) -> Iterator[None]:
    """Within this context `check` is called before every layer of the model; it may raise."""
    with ExitStack() as hooks:
        for layer in _layers(model):
            hooks.callback(layer.register_forward_pre_hook(lambda _module, _inputs: check()).remove)
        yield


def _layers(model: Any) -> list[nn.Module]:
    """What a model is stacked of, and its output layer, which in a small model takes as long as several of them."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return [*(layer for stack in stacks for layer in stack), model.get_output_embeddings()]
