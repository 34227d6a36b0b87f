"""From a `Quantization` to torchao's configs, and from a model to a smaller one.

torchao chooses scales and integers, a layer at a time, so the peak is the model plus one layer. On a GPU its tensors
stay and run; on a CPU the integers go into the layers of quantized_linear.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8WeightOnlyConfig,
    Int4WeightOnlyConfig,
    Int8DynamicActivationInt8WeightConfig,
    Int8StaticActivationInt8WeightConfig,
    Int8WeightOnlyConfig,
    IntxWeightOnlyConfig,
    MappingType,
    PerAxis,
    PerGroup,
    PerRow,
    PerTensor,
    quantize_,
)
from torchao.quantization.quantize_.workflows.int4.int4_packing_format import Int4PackingFormat

from engine.errors import WeightsError
from engine.models.bitsandbytes import scale_bytes
from engine.models.calibration import Inputs, measure_inputs, smoothing_factors
from engine.models.quantized_linear import (
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    Int8Product,
    QuantizedLinear,
    can_multiply_int8,
    input_scale_of,
)
from engine.models.schemes import DEFAULT_GROUP_SIZE, Ability, explain
from engine.models.spec import Granularity, Quantization, Scheme

_TO_INT8_PRODUCT = (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC)
_INT4_OUT_MULTIPLE = 16
# Where image models keep what looks at pictures: it stays as it is.
VISION = ("visual", "vision_tower", "vision_model", "multi_modal_projector", "connector")


def ability_of(device: torch.device) -> Ability:
    """What `device` can multiply."""
    if device.type == "cuda":
        return Ability("cuda", torch.cuda.get_device_capability(device))
    return Ability(has_int8_products=can_multiply_int8())


def check_quantization(quantization: Quantization, device: torch.device) -> None:
    """Raise WeightsError with the reasons where `device` cannot run it."""
    if reasons := explain(quantization, ability_of(device)):
        raise WeightsError("; ".join(reasons))


def torchao_config(quantization: Quantization, kind: str) -> AOBaseConfig:
    """torchao's config for the weights on a device of this kind, `cpu` or `cuda`. Static INT8 needs a scale of each
    layer besides, so its config here is the dynamic one, which has the same weights."""
    scheme = quantization.scheme
    if scheme is Scheme.INT8_WEIGHT:
        return _int8_weight_config(quantization)
    if scheme in _TO_INT8_PRODUCT:
        granularity = [PerRow(), _granularity(quantization)]
        return Int8DynamicActivationInt8WeightConfig(
            granularity=granularity, set_inductor_config=False, reduce_range=kind == "cpu"
        )
    if scheme is Scheme.INT4_WEIGHT:
        return _int4_config(quantization, kind)
    if scheme is Scheme.FP8_WEIGHT:
        return Float8WeightOnlyConfig(granularity=_granularity(quantization), set_inductor_config=False)
    return Float8DynamicActivationFloat8WeightConfig(granularity=_granularity(quantization), set_inductor_config=False)


def _int8_weight_config(quantization: Quantization) -> AOBaseConfig:
    if quantization.is_symmetric:
        return Int8WeightOnlyConfig(granularity=_granularity(quantization), set_inductor_config=False)
    is_group = quantization.granularity is Granularity.GROUP
    granularity = _granularity(quantization) if is_group else PerAxis(0)
    return IntxWeightOnlyConfig(torch.int8, granularity, MappingType.ASYMMETRIC)


def _int4_config(quantization: Quantization, kind: str) -> AOBaseConfig:
    if kind == "cuda":
        size = quantization.group_size or DEFAULT_GROUP_SIZE
        form = Int4PackingFormat.TILE_PACKED_TO_4D
        return Int4WeightOnlyConfig(group_size=size, int4_packing_format=form, set_inductor_config=False)
    mapping = MappingType.SYMMETRIC if quantization.is_symmetric else MappingType.ASYMMETRIC
    int4: Any = torch.int4  # type: ignore[attr-defined]  # torch's stubs have no such dtype yet
    return IntxWeightOnlyConfig(int4, _granularity(quantization), mapping)


def _granularity(quantization: Quantization) -> PerTensor | PerRow | PerGroup:
    if quantization.granularity is Granularity.TENSOR:
        return PerTensor()
    if quantization.granularity is Granularity.CHANNEL:
        return PerRow()
    return PerGroup(quantization.group_size or DEFAULT_GROUP_SIZE)


def quantize_model(
    model: Any,
    tokenizer: Any,
    quantization: Quantization,
    device: torch.device,
    dtype: torch.dtype,
    on_step: Callable[[float], None],
) -> tuple[str, ...]:
    """Quantize in place the linear layers of a model on the host, each on its way to `device`, which so never holds
    more than the quantized model and one layer (but for static INT8, which runs the whole first). What stays is cast
    to `dtype`. The names of layers that stay although they were not to be kept, because their shape does not suit.
    `on_step(fraction)` may raise.

    Raises:
        WeightsError: the device cannot run this, or nothing would be quantized.
    """
    check_quantization(quantization, device)
    names = _chosen(model, quantization)
    fitting = [name for name in names if _fits(model.get_submodule(name), quantization)]
    if not fitting:
        raise WeightsError(
            f"{quantization.scheme} leaves every layer of {type(model).__name__} as it is: keep fewer layers than "
            f"{', '.join(quantization.keep) or 'those of other shapes'}, or choose another granularity"
        )
    inputs: dict[str, Inputs] = {}
    if quantization.scheme is Scheme.INT8_STATIC:
        model.to(device, torch.float32 if device.type == "cpu" else dtype)  # on a CPU bfloat16 takes six times as long
        inputs = measure_inputs(model, tokenizer, fitting, quantization.prompts, lambda done: on_step(done / 2))
    begin = 0.5 if inputs else 0.0
    for index, name in enumerate(fitting):
        on_step(begin + (1 - begin) * index / len(fitting))
        _quantize_layer(model, name, quantization, device, dtype, inputs.get(name))
    for parameter in model.parameters():
        if type(parameter.data) is torch.Tensor and parameter.dtype.is_floating_point:
            parameter.data = parameter.data.to(dtype)
    model.config.dtype = dtype
    tie_embeddings(model, dtype)
    model.to(device)
    on_step(1.0)
    return tuple(name for name in names if name not in set(fitting))


def _chosen(model: Any, quantization: Quantization) -> list[str]:
    """The linear layers to quantize, in order."""
    return [
        name
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        and not name.endswith(quantization.keep or ("\0",))
        and not any(part in VISION for part in name.split("."))
    ]


def _fits(linear: nn.Linear, quantization: Quantization) -> bool:
    size = quantization.group_size or DEFAULT_GROUP_SIZE
    if quantization.granularity is Granularity.GROUP and linear.in_features % size:
        return False
    return quantization.scheme is not Scheme.INT4_WEIGHT or linear.out_features % _INT4_OUT_MULTIPLE == 0


def _quantize_layer(
    model: Any,
    name: str,
    quantization: Quantization,
    device: torch.device,
    dtype: torch.dtype,
    inputs: Inputs | None,
) -> None:
    linear = model.get_submodule(name)
    if device.type == "cuda":
        _quantize_on_gpu(linear.to(device, dtype), quantization, inputs)
        return
    is_output = linear is model.get_output_embeddings()
    parent, _, child = name.rpartition(".")
    made = _output_layer(linear) if is_output else _cpu_layer(linear, quantization, inputs)
    setattr(model.get_submodule(parent), child, made)


def _output_layer(linear: nn.Linear) -> Int8Linear:
    """The output layer decides between tokens that are nearly tied, so it gets 8 bits a channel in every scheme."""
    qdata, scale, _ = _integers(linear.weight, Quantization(Scheme.INT8_WEIGHT))
    return Int8Linear(qdata, scale, None, linear.bias)


def _cpu_layer(linear: nn.Linear, quantization: Quantization, inputs: Inputs | None) -> QuantizedLinear:
    weight = linear.weight.detach().float()
    smoothing = None if inputs is None else smoothing_factors(inputs.largest, weight)
    qdata, scale, zero_point = _integers(weight if smoothing is None else weight * smoothing, quantization)
    if quantization.scheme in _TO_INT8_PRODUCT:
        step = None
        if inputs is not None and smoothing is not None and inputs.is_even:
            step = input_scale_of((inputs.largest / smoothing).amax())
        return Int8Product(qdata, scale.expand(qdata.shape[0], 1), linear.bias, step, smoothing)
    if quantization.scheme is Scheme.INT4_WEIGHT:
        return Int4Linear.pack(qdata, scale, zero_point, linear.bias)
    return Int8Linear(qdata, scale.expand(qdata.shape[0], -1).contiguous(), zero_point, linear.bias)


def _integers(
    weight: torch.Tensor, quantization: Quantization
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """What torchao makes of a weight: integers (out, in), scales and zero points (out, groups); none if symmetric."""
    holder = nn.Linear(1, 1, bias=False)
    holder.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
    quantize_(holder, torchao_config(quantization, "cpu"))
    made: Any = holder.weight.data
    return made.qdata, made.scale.float(), None if quantization.is_symmetric else made.zero_point


def _quantize_on_gpu(linear: nn.Linear, quantization: Quantization, inputs: Inputs | None) -> None:
    config = torchao_config(quantization, "cuda")
    if inputs is None:
        quantize_(linear, config)
        return
    weight = linear.weight.detach()
    smoothing = smoothing_factors(inputs.largest, weight).to(weight.dtype)
    linear.weight = nn.Parameter(weight * smoothing, requires_grad=False)
    step = ((inputs.largest / smoothing.float()).amax() / 127).reshape(1, 1, 1)  # one for rows of (1, tokens, channels)
    granularity = [PerTensor(), _granularity(quantization)]
    if inputs.is_even:
        config = Int8StaticActivationInt8WeightConfig(
            act_quant_scale=step, granularity=granularity, set_inductor_config=False
        )
    quantize_(linear, config)
    made: Any = linear.weight
    made.act_pre_scale = 1 / smoothing


def tie_embeddings(model: Any, dtype: torch.dtype) -> None:
    """Let embeddings that are tied to a quantized output layer read its rows."""
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    if is_tied and isinstance(output, Int8Linear) and type(embeddings) is nn.Embedding:
        model.set_input_embeddings(Int8Embedding(output, dtype))


def weights_bytes(model: nn.Module) -> int:
    """Bytes of all weights, each once: parameters, quantized layers, what is inside torchao's tensors, and the scales
    beside those of bitsandbytes."""
    layers = [module for module in model.modules() if isinstance(module, QuantizedLinear)]
    parameters = sum(map(_tensor_bytes, model.parameters())) + sum(map(scale_bytes, model.modules()))
    return parameters + sum(layer.weight_bytes for layer in layers)


def _tensor_bytes(parameter: torch.Tensor) -> int:
    data: Any = parameter.data
    if type(data) is torch.Tensor or not hasattr(data, "tensor_data_names"):
        return parameter.nbytes
    names = [*data.tensor_data_names, *getattr(data, "optional_tensor_data_names", [])]
    inner = [getattr(data, name) for name in names]
    return sum(tensor.nbytes for tensor in inner if tensor is not None)
