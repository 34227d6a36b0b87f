"""What a model's weights take in memory, by role, dtype and quantization: pure arithmetic over shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from engine.models.footprint import LINEAR_ROLES, Footprint, Parameter, Role
from engine.models.headers import TensorInfo
from engine.models.schemes import DEFAULT_GROUP_SIZE, NF4_GROUP_SIZE
from engine.models.spec import Granularity, Quantization, Scheme

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_FP8 = (Scheme.FP8_WEIGHT, Scheme.FP8_DYNAMIC)
# Four-bit kernels read a bfloat16 scale and a bfloat16 zero point a group, and outputs in blocks.
_INT4_SCALE_BYTES = 2 + 2
_INT4_OUT_MULTIPLE = 16
# Layers that transformers calls one after another on the same input; on a CPU in float32 one packed product does the
# work of all (engine/models/packing.py).
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_SCALE_BYTES = 4
_ZERO_BYTES = 1
_NF4_TABLE_BYTES = 16 * 4
# INT8 products on a CPU keep a row's inputs in whole blocks of so many: fbgemm's KCB for AVX2 and VNNI, elsewhere less.
_INT8_PRODUCT_BLOCK = 512
_INT8_PRODUCTS = (Scheme.INT8_DYNAMIC, Scheme.INT8_STATIC)
_FOUR_BITS = (Scheme.INT4_WEIGHT, Scheme.BNB_NF4)
# The output layer has 8 bits a channel on a CPU, whatever the scheme (engine/models/quantization.py).
_CPU_HEAD = Quantization(Scheme.INT8_WEIGHT)


class Kind(StrEnum):
    """What a line of the plan is about; the parts of the bar on the page."""

    WEIGHTS = "weights"
    CACHE = "KV cache"
    WORKING = "activations"
    FRAMEWORK = "framework"


@dataclass(frozen=True, slots=True)
class Line:
    """One item of a plan, with the arithmetic behind it."""

    kind: Kind
    what: str
    num_bytes: int
    how: str


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how weights are kept, `auto` resolved. `device` is `cpu` or `cuda:0`; `is_compiled` says that steps
    are compiled code, which reads weights as they are."""

    device: str
    dtype: str
    quantization: Quantization | None = None
    is_compiled: bool = False

    @property
    def is_cpu(self) -> bool:
        return self.device == "cpu"

    @property
    def item_bytes(self) -> int:
        return ITEM_BYTES[self.dtype]

    @property
    def is_packed(self) -> bool:
        """On a CPU in float32 linear layers are kept in oneDNN's layout (engine/models/packing.py), unless others of
        them are quantized or steps are compiled."""
        return self.is_cpu and self.dtype == "float32" and self.quantization is None and not self.is_compiled


def weight_lines(footprint: Footprint, placement: Placement) -> tuple[Line, ...]:
    """One line a role and precision, in the order of roles; empty ones are left out."""
    groups: dict[tuple[Role, bool], list[Parameter]] = defaultdict(list)
    for parameter in footprint.parameters:
        groups[parameter.role, is_quantized(parameter, placement)].append(parameter)
    if shares_quantized_head(footprint, placement):
        del groups[Role.EMBEDDING, False]
    lines = [
        _role_line(role, groups[role, quantized], placement, is_quantized=quantized)
        for role in Role
        for quantized in (False, True)
        if (role, quantized) in groups
    ]
    return (*lines, *_tied_head_lines(footprint, placement))


def _role_line(role: Role, parameters: list[Parameter], placement: Placement, *, is_quantized: bool) -> Line:
    count = sum(parameter.tensor.num_elements for parameter in parameters)
    if is_quantized:
        used = scheme_of(role, placement)
        total = sum(quantized_bytes(parameter.tensor, used, placement) or 0 for parameter in parameters)
        return Line(Kind.WEIGHTS, f"{role}, {used.scheme}", total, _explain_quantized(count, used))
    total = sum(dense_bytes(parameter.tensor, placement) for parameter in parameters)
    if not any(parameter.tensor.is_cast for parameter in parameters):
        return Line(Kind.WEIGHTS, str(role), total, "as stored in the checkpoint")
    packed = ", packed for oneDNN" if placement.is_packed and role in LINEAR_ROLES else ""
    return Line(Kind.WEIGHTS, str(role), total, f"{count:,} x {placement.item_bytes} B ({placement.dtype}{packed})")


def _tied_head_lines(footprint: Footprint, placement: Placement) -> list[Line]:
    """What a tied output head takes of its own: packing and quantizing give it another layout than the embeddings'.
    On a CPU the embeddings then read the rows of the quantized head, and their table is gone."""
    head = tied_head(footprint)
    if head is None:
        return []
    count = head.tensor.num_elements
    if is_quantized(head, placement):
        used = scheme_of(Role.HEAD, placement)
        what = "embeddings and output head" if placement.is_cpu else "tied output head"
        total = quantized_bytes(head.tensor, used, placement) or 0
        return [Line(Kind.WEIGHTS, f"{what}, {used.scheme}", total, _explain_quantized(count, used))]
    if placement.is_packed:
        how = f"{count:,} x {placement.item_bytes} B: the embeddings once more, packed for oneDNN"
        return [Line(Kind.WEIGHTS, "tied output head, packed copy", dense_bytes(head.tensor, placement), how)]
    return []


def shares_quantized_head(footprint: Footprint, placement: Placement) -> bool:
    """Whether embeddings have no table of their own, because they read a quantized head's rows."""
    head = tied_head(footprint)
    return placement.is_cpu and head is not None and is_quantized(head, placement)


def tied_head(footprint: Footprint) -> Parameter | None:
    """The output head of a model whose head is its embeddings, as a layer of its own; None where they are two, or are
    stored as they are multiplied."""
    table = embedding_table(footprint)
    if not footprint.is_tied or table is None or not table.is_cast:
        return None
    return Parameter(Role.HEAD, TensorInfo("lm_head.weight", table.shape, table.stored_bytes, is_cast=table.is_cast))


def embedding_table(footprint: Footprint) -> TensorInfo | None:
    """The table of word embeddings: the largest one there is."""
    tables = [parameter.tensor for parameter in footprint.parameters if parameter.role is Role.EMBEDDING]
    return max(tables, key=lambda tensor: tensor.num_elements, default=None)


def dense_bytes(tensor: TensorInfo, placement: Placement) -> int:
    """Bytes in the placement's dtype; what the checkpoint has quantized stays as stored."""
    return tensor.num_elements * placement.item_bytes if tensor.is_cast else tensor.stored_bytes


def is_quantized(parameter: Parameter, placement: Placement) -> bool:
    """Whether loading quantizes this tensor: the weight of a plain linear layer that is not to be kept, suits the
    kernels, and is not the image encoder's."""
    quantization = placement.quantization
    return (
        quantization is not None
        and parameter.role in (Role.LINEAR, Role.HEAD)
        and parameter.tensor.is_cast
        and not parameter.layer_name.endswith(quantization.keep or ("\0",))
        and quantized_bytes(parameter.tensor, quantization, placement) is not None
    )


def scheme_of(role: Role, placement: Placement) -> Quantization:
    """The quantization of a role, which is quantized at all."""
    return _CPU_HEAD if placement.is_cpu and role is Role.HEAD else placement.quantization or _CPU_HEAD


def quantized_bytes(tensor: TensorInfo, quantization: Quantization, placement: Placement) -> int | None:
    """Bytes of a matrix with its scales and zero points; None where its shape does not suit."""
    num_out, num_in = tensor.shape
    scheme, group = quantization.scheme, group_size(quantization)
    if scheme is Scheme.BNB_NF4:  # groups run on over the rows, and any shape suits
        num_groups = math.ceil(num_out * num_in / NF4_GROUP_SIZE)
        return math.ceil(num_out * num_in / 2) + num_groups * _SCALE_BYTES + _NF4_TABLE_BYTES
    if scheme is Scheme.BNB_INT8:
        return num_out * (num_in + _SCALE_BYTES)
    if (group is not None and num_in % group) or (scheme is Scheme.INT4_WEIGHT and num_out % _INT4_OUT_MULTIPLE):
        return None
    num_scales = _num_scales(num_out, num_in, quantization.granularity, group, placement)
    if scheme is Scheme.INT4_WEIGHT:
        return math.ceil(num_out * num_in / 2) + num_scales * _INT4_SCALE_BYTES
    num_kept = product_inputs(num_in) if placement.is_cpu and scheme in _INT8_PRODUCTS else num_in
    return num_out * num_kept + num_scales * _scale_bytes(quantization, placement)


def product_inputs(num_in: int) -> int:
    """The inputs that a row of an INT8 product on a CPU has room for."""
    return -(-num_in // _INT8_PRODUCT_BLOCK) * _INT8_PRODUCT_BLOCK


def _scale_bytes(quantization: Quantization, placement: Placement) -> int:
    """Of one scale with its zero point. torchao's symmetric INT8 has a zero point too, its affine one a scale in the
    model's dtype; on a CPU the engine keeps what it needs."""
    if quantization.scheme in _FP8:
        return _SCALE_BYTES
    if placement.is_cpu:
        return _SCALE_BYTES + (0 if quantization.is_symmetric else _ZERO_BYTES)
    return (_SCALE_BYTES if quantization.is_symmetric else placement.item_bytes) + _ZERO_BYTES


def group_size(quantization: Quantization) -> int | None:
    """Inputs that share a scale; None where a whole channel or tensor does."""
    if quantization.granularity is not Granularity.GROUP:
        return None
    return quantization.group_size or DEFAULT_GROUP_SIZE


def _num_scales(num_out: int, num_in: int, granularity: Granularity, group: int | None, placement: Placement) -> int:
    """On a CPU a tensor's one scale is written out a channel."""
    if group is not None:
        return num_out * (num_in // group)
    return 1 if granularity is Granularity.TENSOR and not placement.is_cpu else num_out


def _explain_quantized(count: int, quantization: Quantization) -> str:
    group = group_size(quantization)
    shared = f"group of {group}" if group is not None else str(quantization.granularity)
    what = "a scale" if quantization.is_symmetric else "a scale and a zero point"
    return f"{count:,} x {4 if quantization.scheme in _FOUR_BITS else 8} bit, {what} a {shared}"


def total_bytes(lines: Iterable[Line], *kinds: Kind) -> int:
    """The sum of the lines of these kinds, or of all."""
    return sum(line.num_bytes for line in lines if not kinds or line.kind in kinds)
