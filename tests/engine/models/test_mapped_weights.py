from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.models.mapped_weights import copy_mapped_weights
from engine.models.process_memory import find_mapped, mapped_bytes
from tests.fakes import save_tiny_llama


def _mapped_model(folder: Path) -> nn.Module:
    from transformers import AutoModelForCausalLM

    model: nn.Module = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    return model


@pytest.mark.parametrize("is_tied", [False, True])
def test_what_was_mapped_is_copied_and_stays_tied(tmp_path: Path, is_tied: bool) -> None:
    model = _mapped_model(save_tiny_llama(tmp_path / "m", tie_word_embeddings=is_tied))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    blocks = [(tensor.data_ptr(), tensor.nbytes) for tensor in model.parameters()]
    if mapped_bytes(blocks) == 0:
        pytest.skip("this transformers copies what it reads")
    copy_mapped_weights(model)
    assert not find_mapped(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    assert (embeddings.weight is head.weight) == is_tied


def test_what_has_memory_of_its_own_stays_where_it_is() -> None:
    model = nn.Linear(4, 4)
    places = [tensor.data_ptr() for tensor in model.parameters()]
    copy_mapped_weights(model)
    assert [tensor.data_ptr() for tensor in model.parameters()] == places
