"""Linear layers over quantized weights on a CPU, through the products that torch ships.

torchao's tensors answer `nn.functional.linear` too, but outside torch.compile their CPU path is slow: one token of
SmolLM2 takes 167 ms of one core in weight-only INT8 and 296 ms in dynamic INT8, against 90 and 51 ms here. So torchao
chooses scales and integers (quantization.py), and these modules multiply with products that torch has:

    Int8Linear     weight-only: a slice of the weight becomes float32 in the CPU's cache, and is multiplied there
    Int8Product    INT8 by INT8 with fbgemm, activations scaled a row at a time (dynamic) or by calibration (static)
    Int4Linear     the 4-bit kernel, on bfloat16 rows

`Int8Product` gives a row the same bits whatever rows stand beside it, because INT8 sums are exact; the others may not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from engine.models.weight_lines import product_inputs

# Elements of a weight that become float32 at a time: 4 MB stay in the cache that one core has.
_SLICE_ELEMENTS = 1 << 20
# Without VNNI, products of unsigned by signed bytes are summed in pairs to 16 bits: activations have 8 bits, so weights
# have 7 (2 * 255 * 64 = 32,640). The other way round costs three times the quality (docs/benchmarks.md).
_INPUT_MAX = 127
_INPUT_ZERO = 128


def can_multiply_int8() -> bool:
    """Whether this torch has INT8 products for this CPU."""
    return "fbgemm" in torch.backends.quantized.supported_engines and hasattr(
        torch.ops.quantized, "linear_with_input_q_dq_qweight_dq_output_fp32"
    )


def dequantize(qdata: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None) -> torch.Tensor:
    """(n, k) integers with (n, groups) scales to float32."""
    groups = qdata.reshape(qdata.shape[0], scale.shape[1], -1).float()
    if zero_point is not None:
        groups = groups - zero_point[:, :, None].float()
    return (groups * scale[:, :, None]).reshape(qdata.shape)


class QuantizedLinear(nn.Module):
    """What the three have in common. `weight_bytes` is what its weights take."""

    kind: str
    bias: torch.Tensor | None

    def __init__(self, in_features: int, out_features: int, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    @property
    def weight_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, torch.Tensor]:
        """What saving writes, and the constructor takes."""
        raise NotImplementedError

    def _bias(self) -> dict[str, torch.Tensor]:
        return {} if self.bias is None else {"bias": self.bias}


class Int8Linear(QuantizedLinear):
    """Weight-only: `qdata` (out, in) int8, `scale` and `zero_point` (out, groups)."""

    kind = "int8"

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        zero_point: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        super().__init__(qdata.shape[1], qdata.shape[0], bias)
        self.qdata, self.scale, self.zero_point = qdata, scale.float(), zero_point

    def tensors(self) -> dict[str, torch.Tensor]:
        zero_point = {} if self.zero_point is None else {"zero_point": self.zero_point}
        return {"qdata": self.qdata, "scale": self.scale, **zero_point, **self._bias()}

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features)."""
        step = max(1, _SLICE_ELEMENTS // self.in_features)
        inputs = rows.float()
        parts = [self._multiply(inputs, slice(start, start + step)) for start in range(0, self.out_features, step)]
        product = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return (product if self.bias is None else product + self.bias).to(rows.dtype)

    def _multiply(self, inputs: torch.Tensor, part: slice) -> torch.Tensor:
        scale = self.scale[part]
        if self.zero_point is None and scale.shape[1] == 1:
            return functional.linear(inputs, self.qdata[part].float()) * scale[:, 0]
        zero_point = None if self.zero_point is None else self.zero_point[part]
        return functional.linear(inputs, dequantize(self.qdata[part], scale, zero_point))


class Int8Embedding(nn.Module):
    """Embeddings tied to an output layer: the rows of its weight."""

    def __init__(self, output: Int8Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self._output, self._dtype = [output], dtype  # in a list: the output layer is not a child of the embeddings

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(...) ids to (..., width)."""
        output, flat = self._output[0], ids.reshape(-1)
        zero_point = None if output.zero_point is None else output.zero_point[flat]
        rows = dequantize(output.qdata[flat], output.scale[flat], zero_point)
        return rows.reshape(*ids.shape, -1).to(self._dtype)


class Int8Product(QuantizedLinear):
    """INT8 weights of -64 to 63, one scale a channel, by INT8 activations.

    Attributes:
        input_scale: (1,) what one step of an activation means, from calibration; None scales each row by its largest.
        smoothing: (in features) what activations are divided by beforehand, the weight having been multiplied by it.
    """

    kind = "int8-product"
    input_scale: torch.Tensor | None
    smoothing: torch.Tensor | None

    def __init__(
        self,
        qdata: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None = None,
        input_scale: torch.Tensor | None = None,
        smoothing: torch.Tensor | None = None,
    ) -> None:
        super().__init__(qdata.shape[1], qdata.shape[0], bias)
        self.register_buffer("input_scale", input_scale)
        self.register_buffer("smoothing", smoothing)
        self._inverse = None if smoothing is None else 1.0 / smoothing
        self._step = None if input_scale is None else float(input_scale)
        self._scale = scale.float().reshape(-1)
        self._packed = _pack_int8(qdata, self._scale)

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {"input_scale": self.input_scale, "smoothing": self.smoothing}
        given = {name: tensor for name, tensor in found.items() if tensor is not None}
        return {"qdata": _unpack_int8(self._packed), "scale": self._scale, **given, **self._bias()}

    @property
    def weight_bytes(self) -> int:
        smoothing = 0 if self.smoothing is None else self.smoothing.nbytes
        bias = 0 if self.bias is None else self.bias.nbytes
        return product_inputs(self.in_features) * self.out_features + self._scale.nbytes + smoothing + bias

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features)."""
        inputs = rows.float() if self._inverse is None else rows.float() * self._inverse
        multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        if self._step is not None:
            product = multiply(inputs, self._step, _INPUT_ZERO, self._packed)
        else:
            largest = inputs.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
            product = multiply(inputs / largest, 1 / _INPUT_MAX, _INPUT_ZERO, self._packed) * largest
        result: torch.Tensor = product if self.bias is None else product + self.bias
        return result.to(rows.dtype)


def input_scale_of(largest: torch.Tensor) -> torch.Tensor:
    """What one step of an activation means where the largest seen is `largest`."""
    return (largest / _INPUT_MAX).clamp_min(1e-12).reshape(1).float()


class Int4Linear(QuantizedLinear):
    """4-bit weights in the layout of this CPU's kernel, which differs between instruction sets; `scales_and_zeros`
    is (groups, out, 2) bfloat16: weight = (integer - 8) * scale + zero."""

    kind = "int4"

    def __init__(
        self,
        packed: torch.Tensor,
        scales_and_zeros: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> None:
        num_groups, num_out, _ = scales_and_zeros.shape
        super().__init__(packed.shape[1] * 2, num_out, bias)
        self.packed, self.scales_and_zeros = packed, scales_and_zeros
        self.group_size = self.in_features // num_groups

    @classmethod
    def pack(
        cls, integers: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor | None, bias: torch.Tensor | None
    ) -> Int4Linear:
        """From integers of -8 to 7, (out, in), with scales and zero points (out, groups)."""
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(integers.int() + 8, 1)
        zeros = torch.zeros_like(scale) if zero_point is None else -zero_point.float() * scale
        both = torch.stack([scale, zeros], dim=-1).transpose(0, 1).to(torch.bfloat16).contiguous()
        return cls(packed, both, bias)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"packed": self.packed, "scales_and_zeros": self.scales_and_zeros, **self._bias()}

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(..., in features) to (..., out features)."""
        inputs = rows.reshape(-1, self.in_features).to(torch.bfloat16)
        product: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            inputs.contiguous(), self.packed, self.group_size, self.scales_and_zeros
        ).to(rows.dtype)
        product = product.reshape(*rows.shape[:-1], self.out_features)
        return product if self.bias is None else product + self.bias.to(rows.dtype)


# The layers that files may name; each takes what `tensors` gives.
KINDS: dict[str, Callable[..., QuantizedLinear]] = {cls.kind: cls for cls in (Int8Linear, Int8Product, Int4Linear)}


def _pack_int8(qdata: torch.Tensor, scale: torch.Tensor) -> Any:
    zeros = torch.zeros(len(scale), dtype=torch.long)
    with _fbgemm():
        weight = torch._make_per_channel_quantized_tensor(qdata, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(weight, None)


def _unpack_int8(packed: Any) -> torch.Tensor:
    with _fbgemm():
        qdata: torch.Tensor = torch.ops.quantized.linear_unpack(packed)[0].int_repr()
    return qdata


@contextmanager
def _fbgemm() -> Iterator[None]:
    """Pack for fbgemm, and do without torch's warning that quantized tensors will go: torch is pinned. Process-wide,
    as loads are, which take turns."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"torch\.quantize_per_tensor.*deprecated", category=UserWarning)
            yield
    finally:
        torch.backends.quantized.engine = before
