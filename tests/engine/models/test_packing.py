from __future__ import annotations

import weakref
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.models.packing import PackedLinear, PackedProduct, can_pack, pack_linears
from engine.models.process_memory import find_mapped

_CPU = torch.device("cpu")
_SIBLINGS = [
    (("only", 96),),
    (("q_proj", 64), ("k_proj", 32), ("v_proj", 32)),
    (("gate_proj", 96), ("up_proj", 96)),
]

pytestmark = pytest.mark.skipif(not can_pack(_CPU, torch.float32), reason="this torch has no packed linear layers")


def _linear(num_in: int, num_out: int, *, bias: bool = True) -> nn.Linear:
    generator = torch.Generator().manual_seed(num_in * 1_000 + num_out)
    linear = nn.Linear(num_in, num_out, bias=bias)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return linear


def _layers(num_in: int, names: tuple[tuple[str, int], ...], *, bias: bool = True) -> tuple[nn.Module, nn.Module]:
    """The same layers plain and packed."""
    both = [
        nn.Sequential(OrderedDict((name, _linear(num_in, num_out, bias=bias)) for name, num_out in names))
        for _ in range(2)
    ]
    assert pack_linears(both[1]) == len(names)
    return both[0], both[1]


def _rows(num_rows: int, num_in: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(num_rows, num_in, generator=torch.Generator().manual_seed(num_rows + seed))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("names", _SIBLINGS)
@pytest.mark.parametrize(("num_rows", "num_in"), [(1, 64), (2, 576), (7, 33), (64, 128), (1, 1)])
@torch.inference_mode()
def test_equals_plain_linears(num_rows: int, num_in: int, names: tuple[tuple[str, int], ...], bias: bool) -> None:
    plain, packed = _layers(num_in, names, bias=bias)
    rows = _rows(num_rows, num_in)
    for name, _ in names:
        torch.testing.assert_close(getattr(packed, name)(rows), getattr(plain, name)(rows), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("names", [*_SIBLINGS, (("wide", 4_096),), (("odd", 7),), (("q_proj", 576), ("k_proj", 192))])
@pytest.mark.parametrize("num_in", [33, 64, 576, 1_536])
@torch.inference_mode()
def test_a_row_has_the_same_bits_in_any_company(num_in: int, names: tuple[tuple[str, int], ...]) -> None:
    _, packed = _layers(num_in, names)
    rows = _rows(300, num_in)
    for name, _ in names:
        layer = getattr(packed, name)
        whole = layer(rows).clone()
        for start, stop in ((0, 1), (5, 6), (0, 2), (3, 10), (7, 24), (100, 300), (44, 300), (256, 300)):
            assert torch.equal(layer(rows[start:stop]), whole[start:stop])
            assert torch.equal(layer(rows[start:stop].unsqueeze(0))[0], whole[start:stop])


@pytest.mark.parametrize("names", _SIBLINGS)
@torch.inference_mode()
def test_siblings_may_be_called_in_any_order_on_any_rows(names: tuple[tuple[str, int], ...]) -> None:
    plain, packed = _layers(64, names)
    for seed in range(3):
        first, second = _rows(3, 64, seed), _rows(3, 64, seed + 10)
        for name, _ in reversed(names):
            for rows in (first, second, first):
                expected = getattr(plain, name)(rows)
                torch.testing.assert_close(getattr(packed, name)(rows), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("names", _SIBLINGS)
@pytest.mark.parametrize("bias", [True, False])
def test_weights_can_be_read_back(names: tuple[tuple[str, int], ...], bias: bool) -> None:
    plain, packed = _layers(80, names, bias=bias)
    for before, after in zip(plain.children(), packed.children(), strict=True):
        assert isinstance(after, PackedLinear)
        assert torch.equal(after.weight, before.weight)
        assert (after.bias is None) is (before.bias is None)
        assert before.bias is None or torch.equal(after.bias, before.bias)


def test_all_plain_linears_are_replaced_and_nothing_else() -> None:
    class Special(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(4, 4), nn.ModuleDict({"inner": nn.Linear(4, 2)}), Special(4, 4), nn.LayerNorm(4))
    assert pack_linears(model) == 2
    leaves = [type(module).__name__ for module in model.modules() if not list(module.children())]
    assert leaves == ["PackedLinear", "PackedLinear", "Special", "LayerNorm"]
    first = model[0]
    assert isinstance(first, PackedLinear)
    assert (first.in_features, first.out_features) == (4, 4)


def test_weights_are_freed_one_product_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is packed at the moment is there twice, and siblings are gone when their joined weight is packed."""
    layers = [nn.ModuleDict({name: nn.Linear(8, 8) for name in ("q_proj", "k_proj", "v_proj")}) for _ in range(4)]
    model = nn.ModuleDict({"head": nn.Linear(8, 8), "layers": nn.ModuleList(layers)})
    weights = [weakref.ref(layer.weight) for layer in model.modules() if isinstance(layer, nn.Linear)]
    del layers
    alive: list[int] = []
    pack = PackedProduct.pack

    def count_and_pack(product: PackedProduct) -> None:
        alive.append(sum(weight() is not None for weight in weights))
        pack(product)

    monkeypatch.setattr(PackedProduct, "pack", count_and_pack)
    assert pack_linears(model) == 13
    assert alive == [10, 7, 4, 1, 0]


def test_a_tied_weight_stays_for_the_embeddings() -> None:
    model = nn.ModuleDict({"head": nn.Linear(8, 20, bias=False), "embed": nn.Embedding(20, 8)})
    head, embed = model["head"], model["embed"]
    assert isinstance(head, nn.Linear)
    head.weight = embed.weight
    rows = torch.randn(3, 8)
    expected = rows @ embed.weight.T
    del head
    assert pack_linears(model) == 1
    torch.testing.assert_close(model["head"](rows), expected)
    torch.testing.assert_close(rows @ embed.weight.T, expected)


def test_no_file_stays_mapped_behind_what_is_left(tmp_path: Path) -> None:
    save_file({"weight": torch.randn(64, 8), "table": torch.randn(64, 8)}, tmp_path / "model.safetensors")
    read = load_file(tmp_path / "model.safetensors")
    model = nn.ModuleDict({"layer": nn.Linear(8, 64, bias=False), "embed": nn.Embedding(64, 8)})
    model["layer"].weight = nn.Parameter(read["weight"])
    model["embed"].weight = nn.Parameter(read["table"])
    if not find_mapped([model["embed"].weight.data_ptr()]):
        pytest.skip("this safetensors copies what it reads")
    expected = read["table"].clone()
    assert pack_linears(model) == 1
    assert not find_mapped([model["embed"].weight.data_ptr()])
    assert torch.equal(model["embed"].weight, expected)


@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.bfloat16), ("cpu", torch.float16), ("cuda:0", torch.float32)]
)
def test_only_float32_on_a_cpu(device: str, dtype: torch.dtype) -> None:
    assert not can_pack(torch.device(device), dtype)


def test_not_where_torch_lacks_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not can_pack(_CPU, torch.float32)
