"""Looking whether to go on in the middle of a forward pass."""

from __future__ import annotations

import pytest
import torch

from engine.inference import attention
from engine.job import JobCancelledError
from engine.lab.looking import LookingAtEachOperation, looking_at_each_layer
from engine.models.loader import LoadedModel

IDS = torch.arange(4)[None]


class Looks:
    """Counts, and raises at the one of that number."""

    def __init__(self, last: int | None = None) -> None:
        self.num, self.last = 0, last

    def __call__(self) -> None:
        self.num += 1
        if self.num == self.last:
            raise JobCancelledError("it was cancelled")


@torch.inference_mode()
def forward(loaded: LoadedModel) -> torch.Tensor:
    with attention.used(loaded.model, attention.REFERENCE):  # whatever ran the model before
        logits: torch.Tensor = loaded.model(input_ids=IDS, use_cache=False).logits
    return logits


def test_before_each_layer_and_the_output(tiny: LoadedModel) -> None:
    looks = Looks()
    expected = forward(tiny)
    with looking_at_each_layer(tiny.model, looks):
        assert torch.equal(forward(tiny), expected)
    assert looks.num == tiny.model.config.num_hidden_layers + 1
    forward(tiny)
    assert looks.num == tiny.model.config.num_hidden_layers + 1


def test_it_ends_a_pass_between_two_layers(tiny: LoadedModel) -> None:
    looks = Looks(last=2)
    with pytest.raises(JobCancelledError), looking_at_each_layer(tiny.model, looks):
        forward(tiny)
    forward(tiny)
    assert looks.num == 2


def test_before_each_operation_of_this_thread(tiny: LoadedModel) -> None:
    looks = Looks()
    expected = forward(tiny)
    with LookingAtEachOperation(looks):
        assert torch.equal(forward(tiny), expected)
    assert looks.num > 20
    with pytest.raises(JobCancelledError), LookingAtEachOperation(Looks(last=5)):
        forward(tiny)
