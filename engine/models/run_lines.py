"""What serving takes beside the weights: caches, activations of one forward pass, the framework; and what loading
takes for a while. Pure arithmetic; the constants were measured with torch 2.13 and transformers 5.23.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from engine.models.architecture import Architecture
from engine.models.footprint import LINEAR_ROLES, Footprint, Parameter, Role
from engine.models.headers import TensorInfo
from engine.models.spec import Granularity, Quantization, Scheme
from engine.models.weight_lines import (
    ITEM_BYTES,
    SIBLINGS,
    Kind,
    Line,
    Placement,
    dense_bytes,
    is_quantized,
    quantized_bytes,
    scheme_of,
    tied_head,
    total_bytes,
    weight_lines,
)

# A cache's capacity is a multiple of so many tokens, and grows by half (engine/inference/attention.py).
CACHE_ROUNDING_TOKENS = 64
_CACHE_GROWTH = 1.5
# Prompt tokens in one pass where the setting leaves it to the engine (engine/backend.py).
CHUNK_TOKENS = {"cpu": 256, "cuda": 2_048}
# Resident memory of torch, transformers and torchao once imported, with their threads' first buffers.
FRAMEWORK_BYTES = 420_000_000
# Growth of the process by a model that was loaded and has answered, beyond its tensors: tokenizer, modules, oneDNN's
# scratch. 17 to 33 MB were measured.
RUNTIME_BYTES = 30_000_000
# Driver context (651 MB on an H100), cuBLAS and its workspace, of one process on one GPU.
CUDA_CONTEXT_BYTES = 720_000_000
_UNFUSED_SCORE_BYTES = 10
# While torchao chooses a layer's scales there are the layer as float32 and two more tensors of that size, whatever the
# scheme; measured 12.0 B an element on a CPU for all of them, 8.0 where the first is the file's own page. Smoothing for
# static INT8 makes one more.
_FLOAT32_BYTES = 4
_SCALING_BYTES = 2 * _FLOAT32_BYTES
# The same on a GPU, with the layer in 16 bits and what becomes of it: measured on an H200 (torch 2.11, torchao 0.18)
# for layers of 59 to 525 million elements, within 0.2 B.
_GPU_QUANTIZING_BYTES = {
    Scheme.INT8_WEIGHT: 10,
    Scheme.INT8_DYNAMIC: 10,
    Scheme.INT8_STATIC: 8,  # and the layer, which calibration has left there
    Scheme.INT4_WEIGHT: 12,
    Scheme.FP8_WEIGHT: 15,
    Scheme.FP8_DYNAMIC: 15,
}
_GPU_OTHER_BYTES = 16  # bitsandbytes': an upper bound
_GPU_AFFINE_INT8_BYTES = 6
_GPU_FP8_GROUPS_BYTES = 19
# While a GGUF file is unpacked, transformers holds an array of numpy's for each item of its header (two for a string:
# tokens and merges), 0.7 kB each, and of the tensor in hand two copies in float32. Measured with SmolLM2: 172 MB of
# header, 472 MB at the peak.
_GGUF_TOKEN_BYTES = 3_500
_UNPACKING_BYTES = 2 * _FLOAT32_BYTES
# An AutoGLM screenshot of 1080 x 2400 pixels.
SCREENSHOT_TOKENS = 3_100


@dataclass(frozen=True, slots=True)
class Demand:
    """What the model shall be able to do at once.

    Attributes:
        context_tokens: prompt and answer of one request.
        concurrency: requests of that length running together.
        image_tokens: tokens of the largest image; counts only for a model that sees, whose files do not tell it. 0 for
            no images.
    """

    context_tokens: int
    concurrency: int = 1
    image_tokens: int = SCREENSHOT_TOKENS


def cache_bytes_per_token(architecture: Architecture, placement: Placement) -> int:
    """Keys and values of all layers, whole also where layers look back through a window: as `CacheShape` has it."""
    return architecture.num_layers * (architecture.key_width + architecture.value_width) * placement.item_bytes


def cache_bytes(architecture: Architecture, placement: Placement, num_tokens: int) -> int:
    """The cache of one request that holds `num_tokens`, at its rounded capacity."""
    capacity = -(-num_tokens // CACHE_ROUNDING_TOKENS) * CACHE_ROUNDING_TOKENS
    return capacity * cache_bytes_per_token(architecture, placement)


def cache_line(architecture: Architecture, placement: Placement, demand: Demand) -> Line:
    """The caches of all requests at the end of their answers."""
    each = cache_bytes(architecture, placement, demand.context_tokens)
    per_token = cache_bytes_per_token(architecture, placement)
    capacity = each // per_token
    widths = f"{architecture.num_layers} layers x ({architecture.key_width} + {architecture.value_width})"
    how = f"{demand.concurrency} x {capacity:,} tokens x {per_token:,} B ({widths} x {placement.item_bytes} B)"
    return Line(Kind.CACHE, "keys and values", demand.concurrency * each, how)


def working_lines(
    footprint: Footprint, placement: Placement, demand: Demand, chunk_tokens: int, *, has_framework: bool
) -> tuple[Line, ...]:
    """What one forward pass and the process need. `has_framework` says that this process has torch in memory already,
    and on a GPU that it has a context there."""
    shape = footprint.architecture
    chunk = min(chunk_tokens, demand.context_tokens)
    rows = chunk + demand.concurrency - 1
    lines = [
        _layer_line(shape, placement, rows),
        _attention_line(shape, placement, chunk, demand.context_tokens, is_chunked=chunk < demand.context_tokens),
        _logits_line(shape, placement, demand.concurrency),
        _growth_line(shape, placement, demand.context_tokens),
        _vision_line(shape, placement, demand.image_tokens),
        *_framework_lines(placement, has_framework=has_framework),
    ]
    return tuple(line for line in lines if line.num_bytes)


def _layer_line(shape: Architecture, placement: Placement, rows: int) -> Line:
    """At its widest a layer holds its input, the residual and the norm, and either gate and up twice (together, and
    activated or multiplied) or query, key and value before and after the rotation."""
    attention = 2 * (shape.query_width + shape.key_width + shape.value_width) + shape.query_width
    width = 4 * shape.hidden_size + max(4 * shape.active_width, attention)
    how = f"{rows:,} rows x {width:,} columns x {placement.item_bytes} B at the widest place of a layer"
    return Line(Kind.WORKING, "activations of a prefill chunk", rows * width * placement.item_bytes, how)


def _attention_line(shape: Architecture, placement: Placement, rows: int, keys: int, *, is_chunked: bool) -> Line:
    """The mask of a chunk that is not the first, as booleans and as numbers. In float32 on a GPU torch has no fused
    kernel for grouped heads and writes the scores out: measured 9.6 to 10.2 B for each on an H100."""
    mask = rows * keys * (1 + placement.item_bytes) if is_chunked else 0
    how = f"{rows:,} rows x {keys:,} keys x (1 + {placement.item_bytes} B)"
    is_fused = placement.is_cpu or placement.dtype != "float32" or shape.key_width == shape.query_width
    if is_fused or shape.num_heads is None:
        return Line(Kind.WORKING, "attention mask", mask, how)
    scores = _UNFUSED_SCORE_BYTES * shape.num_heads * rows * keys
    how += f" for the mask, {shape.num_heads} heads x {_UNFUSED_SCORE_BYTES} B of as many scores"
    return Line(Kind.WORKING, "attention scores", mask + scores, how)


def _logits_line(shape: Architecture, placement: Placement, concurrency: int) -> Line:
    """A row for each request, and what sampling makes of one row: float32, probabilities, their sum in float64."""
    total = shape.vocab_size * (concurrency * placement.item_bytes + 32)
    how = f"{concurrency} x {shape.vocab_size:,} x {placement.item_bytes} B, and 32 B a token for sampling"
    return Line(Kind.WORKING, "logits and sampling", total, how)


def _growth_line(shape: Architecture, placement: Placement, context_tokens: int) -> Line:
    """A cache that grows is copied: for that moment its former self is there too."""
    former = cache_bytes(shape, placement, int(context_tokens / _CACHE_GROWTH))
    return Line(Kind.WORKING, "one cache while it grows", former, f"its former self, 1/{_CACHE_GROWTH:g} of one cache")


def _vision_line(shape: Architecture, placement: Placement, image_tokens: int) -> Line:
    """One pass of the image encoder, over the largest image: it sees `merge_size`² patches for each of its tokens. At
    the widest place of a layer there are gate and up twice, or query and key as they are turned, in float32."""
    vision = shape.vision
    if vision is None or image_tokens == 0:
        return Line(Kind.WORKING, "image encoder", 0, "")
    tokens = vision.max_tokens or image_tokens
    patches = tokens * vision.merge_size**2
    mlp = (8 * vision.hidden_size + 4 * vision.intermediate_size) * placement.item_bytes
    rotation = (5 * placement.item_bytes + 10 * _FLOAT32_BYTES) * vision.hidden_size
    each = max(mlp, rotation)
    how = f"{patches:,} patches x {each:,} B at the widest place of a layer, for one image of {tokens:,} tokens"
    return Line(Kind.WORKING, "image encoder's activations", patches * each, how)


def _framework_lines(placement: Placement, *, has_framework: bool) -> list[Line]:
    if not placement.is_cpu:
        context = 0 if has_framework else CUDA_CONTEXT_BYTES
        return [Line(Kind.FRAMEWORK, "CUDA context", context, "measured; once a process and GPU")]
    imported = 0 if has_framework else FRAMEWORK_BYTES
    return [
        Line(Kind.FRAMEWORK, "torch and transformers", imported, "measured; once a process"),
        Line(Kind.FRAMEWORK, "tokenizer, modules, scratch", RUNTIME_BYTES, "measured with SmolLM2"),
    ]


def loading_lines(footprint: Footprint, placement: Placement, *, has_framework: bool) -> tuple[Line, ...]:
    """What loading holds at its peak. Pages of the files do not count: the system takes them back."""
    plain = replace(placement, quantization=None)
    dense = sum(dense_bytes(parameter.tensor, plain) for parameter in footprint.parameters)
    if placement.quantization is None:
        lines = [Line(Kind.WEIGHTS, f"weights as {placement.dtype}", dense, "all of them, as they are read")]
        lines += _packing_lines(footprint, placement)
    else:
        lines = _quantizing_lines(footprint, placement, placement.quantization)
    lines += _unpacking_lines(footprint, total_bytes(lines))
    lines += _framework_lines(placement, has_framework=has_framework)
    return tuple(line for line in lines if line.num_bytes)


def _packing_lines(footprint: Footprint, placement: Placement) -> list[Line]:
    """Layers are packed one product after the other, and the plain weights of each are gone before the next; a tied
    head, whose plain weights stay for the embeddings, comes last."""
    if not placement.is_packed:
        return []
    largest = max(_product_bytes(footprint, placement).values(), default=0)
    return [Line(Kind.WORKING, "largest packed copy", largest, "plain and packed weights at once, while packing")]


def _product_bytes(footprint: Footprint, placement: Placement) -> Counter[str]:
    """Bytes of each packed product, those of siblings together."""
    sizes: Counter[str] = Counter()
    for layer in _linear_layers(footprint):
        name = layer.layer_name.rpartition(".")[2]
        place = next((index for index, names in enumerate(SIBLINGS) if name in names), None)
        parent = layer.tensor.name.removesuffix(".weight").rpartition(".")[0]
        product = layer.tensor.name if place is None else f"{parent}: {SIBLINGS[place]}"
        sizes[product] += dense_bytes(layer.tensor, placement)
    return sizes


def _quantizing_lines(footprint: Footprint, placement: Placement, quantization: Quantization) -> list[Line]:
    """The model stays in its file's pages on the host, and one layer after the other is quantized on its way to the
    device, the output head last; for static INT8 all of it runs there first. Of these moments the one that takes
    most: the first layer or the last one, were they the largest, the head, or the end."""
    chosen = [item for item in _linear_layers(footprint) if is_quantized(item, placement)]
    heads = [item for item in chosen if item.role is Role.HEAD]
    layers = sorted((item for item in chosen if item.role is not Role.HEAD), key=lambda item: item.tensor.num_elements)
    held = total_bytes(weight_lines(footprint, placement))
    moments = [[Line(Kind.WEIGHTS, "weights at the end", held, "quantized, and what stays as it is")]]
    if layers:
        moments.append(_moment_lines(footprint, placement, quantization, [], layers[-1]))
        moments.append(_moment_lines(footprint, placement, quantization, layers[:-1], layers[-1]))
    moments += [_moment_lines(footprint, placement, quantization, layers, head) for head in heads]
    return max(moments, key=total_bytes)


def _moment_lines(
    footprint: Footprint, placement: Placement, quantization: Quantization, done: list[Parameter], now: Parameter
) -> list[Line]:
    """What is held while `now` is quantized and `done` are already."""
    plain = 0
    if quantization.scheme is Scheme.INT8_STATIC:
        plain = sum(_running_bytes(item.tensor, placement) for item in footprint.parameters)
        plain -= sum(_running_bytes(item.tensor, placement) for item in done)
    ready = sum(quantized_bytes(item.tensor, scheme_of(item.role, placement), placement) or 0 for item in done)
    each = _bytes_while_quantized(now, placement, quantization)
    count = now.tensor.num_elements
    return [
        Line(Kind.WEIGHTS, "plain weights for calibration", plain, "run before quantizing, then let go one by one"),
        Line(Kind.WEIGHTS, "quantized weights", ready, f"{len(done):,} layers"),
        Line(Kind.WORKING, "one layer while it is quantized", count * each, f"{count:,} x {each} B"),
    ]


def _running_bytes(tensor: TensorInfo, placement: Placement) -> int:
    """Of a weight that calibration runs: on a CPU as float32, where that is not what the file holds already."""
    if not placement.is_cpu:
        return dense_bytes(tensor, placement)
    return 0 if _is_float32(tensor) else _FLOAT32_BYTES * tensor.num_elements


def _bytes_while_quantized(layer: Parameter, placement: Placement, quantization: Quantization) -> int:
    """An element of the layer that is being quantized."""
    if not placement.is_cpu:
        return _bytes_while_quantized_on_gpu(placement, quantization)
    if quantization.scheme is Scheme.INT8_STATIC:  # float32 already; the head is not smoothed
        return _SCALING_BYTES + (0 if layer.role is Role.HEAD else _FLOAT32_BYTES)
    return _SCALING_BYTES + (0 if _is_float32(layer.tensor) else _FLOAT32_BYTES)


def _bytes_while_quantized_on_gpu(placement: Placement, quantization: Quantization) -> int:
    scheme, is_symmetric = quantization.scheme, quantization.is_symmetric
    plain = ITEM_BYTES[placement.dtype] - ITEM_BYTES["bfloat16"]
    if scheme is Scheme.INT8_WEIGHT and not is_symmetric:
        return plain + _GPU_AFFINE_INT8_BYTES
    if scheme is Scheme.FP8_WEIGHT and quantization.granularity is Granularity.GROUP:
        return plain + _GPU_FP8_GROUPS_BYTES
    return plain + _GPU_QUANTIZING_BYTES.get(scheme, _GPU_OTHER_BYTES)


def _is_float32(tensor: TensorInfo) -> bool:
    return tensor.is_cast and tensor.stored_bytes == _FLOAT32_BYTES * tensor.num_elements


def _linear_layers(footprint: Footprint) -> list[Parameter]:
    """All linear layers, a tied head among them."""
    head = tied_head(footprint)
    layers = [parameter for parameter in footprint.parameters if parameter.role in LINEAR_ROLES]
    return layers if head is None else [*layers, head]


def _unpacking_lines(footprint: Footprint, later_bytes: int) -> list[Line]:
    """A GGUF file is unpacked the first time, before all else; what that has above what comes later counts."""
    if not footprint.is_gguf or footprint.is_converted:
        return []
    header = _GGUF_TOKEN_BYTES * footprint.architecture.vocab_size
    more = header + _unpacked_bytes(footprint) - later_bytes
    how = "its header, and its weights in bfloat16 as they grow or the one in hand, less the above"
    return [Line(Kind.WORKING, "unpacking the GGUF file, once", max(0, more), how)]


def _unpacked_bytes(footprint: Footprint) -> int:
    """The most that weights take while one after the other becomes bfloat16, in the order of the file."""
    done = most = 0
    for count in (parameter.tensor.num_elements for parameter in footprint.parameters):
        most = max(most, done + _UNPACKING_BYTES * count)
        done += ITEM_BYTES["bfloat16"] * count
    return max(most, done)
