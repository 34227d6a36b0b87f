"""Kernels between a step's matrix products, each one pass over its data, and the product of a single row.

Written in Triton, which CUDA builds of torch bring along. `TRITON_INTERPRET=1`, set before the import, runs them on a
CPU. Sums are float32 throughout.

What is launched `is_early` (programmatic dependent launch, compute capability 9.0) may begin before the kernel before
it has ended, and waits for that before it reads or writes anything but weights.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

# A program of `multiply_row` reads so many of the weight's rows, so many elements of each at a time, in so many warps:
# as measured on an H200, for weights of less and of more than `_MANY` rows, and for those of one byte.
_FEW_ROWS, _MANY_ROWS, _MANY = (8, 1024, 4), (8, 4096, 8), 16_384
_BYTES = (4, 2048, 4)
# Programs that keep a large GPU busy; where requests are fewer, each one's keys are shared among several.
_BUSY = 256
_MOST_SHARES = 32
_KEYS_AT_ONCE = 64
_ANY = 2**30
# Rows up to which `multiply_few` is used; and what a program of it has at a time (rows of the weight, elements of each,
# stages), for up to 32 rows and for more.
FEW = 64
_THIN, _THICK = (32, 256, 4), (64, 128, 4)
_RESTORED = 4096
_HEADS = 8
_ELEMENTS = 1024
# How a weight is stored. Float8 is read as 2**-120 of itself; half of the lift is done to what it is multiplied with,
# so that neither is too small or too large between.
_PLAIN, _INT8, _FLOAT8 = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_LIFT = tl.constexpr(2.0**60)


def _bits_of(weight: torch.Tensor) -> tuple[torch.Tensor, int]:
    """A weight as the kernels read it, and what kind it is."""
    if weight.dtype == torch.float8_e4m3fn:
        return weight.view(torch.uint8), _FLOAT8.value
    return weight, _INT8.value if weight.dtype == torch.int8 else _PLAIN.value


def _launch(is_early: bool) -> dict[str, bool]:
    return {"launch_pdl": True} if is_early else {}


@triton.jit
def _as_float(held, kind: tl.constexpr, has_asm: tl.constexpr):
    """Stored numbers as float32; float8 as 2**-120 of what they are. A GPU converts integers and float8 at a quarter of
    its rate or less, so their bits are put into floats instead: a byte as the last of 2**23, whose neighbours are one
    apart, and a float8's exponent and fraction as a float32's."""
    if kind == _INT8:
        if has_asm:
            return tl.inline_asm_elementwise(
                """
                {
                .reg .b32 moved;
                xor.b32 moved, $4, 0x80808080;
                prmt.b32 $0, moved, 0x4B000000, 0x7440;
                prmt.b32 $1, moved, 0x4B000000, 0x7441;
                prmt.b32 $2, moved, 0x4B000000, 0x7442;
                prmt.b32 $3, moved, 0x4B000000, 0x7443;
                add.f32 $0, $0, 0fCB000080;
                add.f32 $1, $1, 0fCB000080;
                add.f32 $2, $2, 0fCB000080;
                add.f32 $3, $3, 0fCB000080;
                }
                """,
                "=r,=r,=r,=r,r",
                [held],
                dtype=tl.float32,
                is_pure=True,
                pack=4,
            )
        return held.to(tl.float32)
    if kind == _FLOAT8:
        bits = held.to(tl.uint32)
        return (((bits & 0x80) << 24) | ((bits & 0x7F) << 20)).to(tl.float32, bitcast=True)
    return held.to(tl.float32)


@triton.jit
def _multiply_row(
    row,
    weight,
    scale,
    bias,
    norm,
    residual,
    out,
    num_out,
    epsilon,
    num_in: tl.constexpr,
    kind: tl.constexpr,
    has_asm: tl.constexpr,
    has_bias: tl.constexpr,
    has_norm: tl.constexpr,
    has_residual: tl.constexpr,
    is_gated: tl.constexpr,
    rows_at_once: tl.constexpr,
    columns_at_once: tl.constexpr,
    is_early: tl.constexpr,
):
    if is_early:
        gdc_launch_dependents()
    rows = tl.program_id(0) * rows_at_once + tl.arange(0, rows_at_once)
    is_row = rows < num_out
    places = rows.to(tl.int64)[:, None] * num_in
    sums = tl.zeros((rows_at_once, columns_at_once), tl.float32)
    ups = tl.zeros((rows_at_once, columns_at_once), tl.float32)
    squares = tl.zeros((columns_at_once,), tl.float32)
    # Each time the weights of the next are read ahead; the first before the kernel that writes `row` has ended.
    columns = tl.arange(0, columns_at_once)
    inside = is_row[:, None] & (columns < num_in)[None, :]
    held = tl.load(weight + places + columns[None, :], mask=inside, other=0.0, eviction_policy="evict_first")
    if is_gated:
        places_of_up = places + num_out.to(tl.int64) * num_in
        at = weight + places_of_up + columns[None, :]
        held_up = tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first")
    if is_early:
        gdc_wait()
    for start in range(0, num_in, columns_at_once):
        columns = start + tl.arange(0, columns_at_once)
        is_column = columns < num_in
        values = tl.load(row + columns, mask=is_column, other=0.0).to(tl.float32)
        if has_norm:
            squares += values * values
            values *= tl.load(norm + columns, mask=is_column, other=0.0).to(tl.float32)
        if kind == _FLOAT8:
            values *= _LIFT
        sums += _as_float(held, kind, has_asm) * values[None, :]
        columns += columns_at_once
        inside = is_row[:, None] & (columns < num_in)[None, :]
        held = tl.load(weight + places + columns[None, :], mask=inside, other=0.0, eviction_policy="evict_first")
        if is_gated:
            ups += _as_float(held_up, kind, has_asm) * values[None, :]
            at = weight + places_of_up + columns[None, :]
            held_up = tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first")
    product = tl.sum(sums, 1)
    up = tl.sum(ups, 1)
    if kind == _FLOAT8:
        product *= _LIFT
        up *= _LIFT
    if has_norm:
        # The norm scales the whole row by one number, so it can be done to the sums.
        inverse = tl.rsqrt(tl.sum(squares, 0) / num_in + epsilon)
        product *= inverse
        up *= inverse
    if kind != _PLAIN:
        product *= tl.load(scale + rows, mask=is_row, other=0.0)
        if is_gated:
            up *= tl.load(scale + num_out + rows, mask=is_row, other=0.0)
    if has_bias:
        product += tl.load(bias + rows, mask=is_row, other=0.0).to(tl.float32)
        if is_gated:
            up += tl.load(bias + num_out + rows, mask=is_row, other=0.0).to(tl.float32)
    if is_gated:
        product = product / (1.0 + tl.exp(-product)) * up
    if has_residual:
        product += tl.load(residual + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(out + rows, product.to(out.dtype.element_ty), mask=is_row)


def multiply_row(
    row: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    scale: torch.Tensor | None = None,
    *,
    norm: torch.Tensor | None = None,
    epsilon: float = 0.0,
    residual: torch.Tensor | None = None,
    is_gated: bool = False,
    is_early: bool = False,
) -> torch.Tensor:
    """`weight @ row`, (1, out), of `row`, (1, in).

    Args:
        scale: what one step of each row of an integer or float8 weight means, (out,), float32.
        norm: the row is scaled to a root mean square of one and by this, (in,), before.
        residual: (1, out), added to the product.
        is_gated: the weight's first half is a gate for its second: `silu(gate) * up`, (1, out / 2).
    """
    num_out = weight.shape[0] // 2 if is_gated else weight.shape[0]
    out = torch.empty((1, num_out), dtype=row.dtype, device=row.device)
    bits, kind = _bits_of(weight)
    rows_at_once, columns_at_once, warps = _FEW_ROWS if weight.shape[0] < _MANY else _MANY_ROWS
    if scale is not None:
        rows_at_once, columns_at_once, warps = _BYTES
    elif is_gated:
        rows_at_once //= 2
    _multiply_row[(triton.cdiv(num_out, rows_at_once),)](
        row,
        bits,
        row if scale is None else scale,
        row if bias is None else bias,
        row if norm is None else norm,
        row if residual is None else residual,
        out,
        num_out,
        epsilon,
        weight.shape[1],
        kind,
        row.is_cuda,
        bias is not None,
        norm is not None,
        residual is not None,
        is_gated,
        rows_at_once,
        min(columns_at_once, triton.next_power_of_2(weight.shape[1])),
        is_early,
        num_warps=warps,
        **_launch(is_early),
    )
    return out


@triton.jit(do_not_specialize=["num_rows"])
def _multiply_few(
    rows,
    weight,
    scale,
    bias,
    out,
    num_rows,
    num_out,
    num_in: tl.constexpr,
    kind: tl.constexpr,
    has_asm: tl.constexpr,
    has_bias: tl.constexpr,
    rows_block: tl.constexpr,
    outs_at_once: tl.constexpr,
    columns_at_once: tl.constexpr,
):
    outs = tl.program_id(0) * outs_at_once + tl.arange(0, outs_at_once)
    places = tl.arange(0, rows_block)
    is_out = outs < num_out
    is_row = places < num_rows
    of_weight = weight + outs.to(tl.int64)[:, None] * num_in
    of_rows = rows + places[None, :] * num_in
    sums = tl.zeros((outs_at_once, rows_block), tl.float32)
    for start in range(0, num_in, columns_at_once):
        columns = start + tl.arange(0, columns_at_once)
        is_column = columns < num_in
        held = tl.load(of_weight + columns[None, :], mask=is_out[:, None] & is_column[None, :], other=0.0)
        values = tl.load(of_rows + columns[:, None], mask=is_column[:, None] & is_row[None, :], other=0.0)
        if kind == _FLOAT8:
            values = (values.to(tl.float32) * _LIFT).to(values.dtype)
        sums = tl.dot(_as_float(held, kind, has_asm).to(values.dtype), values, sums)
    if kind == _FLOAT8:
        sums *= _LIFT
    sums *= tl.load(scale + outs, mask=is_out, other=0.0)[:, None]
    if has_bias:
        sums += tl.load(bias + outs, mask=is_out, other=0.0).to(tl.float32)[:, None]
    at = out + places[None, :] * num_out + outs[:, None]
    tl.store(at, sums.to(out.dtype.element_ty), mask=is_out[:, None] & is_row[None, :])


def multiply_few(
    rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """`rows @ (weight * scale).T`, (rows, out), of up to `FEW` rows and an integer or float8 weight, which is read as
    it is; `scale` is (out,), float32."""
    num_rows, (num_out, num_in) = len(rows), weight.shape
    out = torch.empty((num_rows, num_out), dtype=rows.dtype, device=rows.device)
    bits, kind = _bits_of(weight)
    rows_block = max(16, triton.next_power_of_2(num_rows))
    outs_at_once, columns_at_once, stages = _THIN if rows_block <= 32 else _THICK
    _multiply_few[(triton.cdiv(num_out, outs_at_once),)](
        rows,
        bits,
        scale,
        rows if bias is None else bias,
        out,
        num_rows,
        num_out,
        num_in,
        kind,
        rows.is_cuda,
        bias is not None,
        rows_block,
        outs_at_once,
        min(columns_at_once, max(16, triton.next_power_of_2(num_in))),
        num_stages=stages,
    )
    return out


@triton.jit
def _restore(weight, scale, out, num_in, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < num_in
    held = tl.load(weight + row * num_in + columns, mask=inside, other=0.0).to(tl.float32) * tl.load(scale + row)
    tl.store(out + row * num_in + columns, held.to(out.dtype.element_ty), mask=inside)


def restore(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`weight * scale`, (out, in), of an integer or float8 weight; `scale` is (out,), float32."""
    num_out, num_in = weight.shape
    out = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    _restore[(num_out, triton.cdiv(num_in, _RESTORED))](weight, scale, out, num_in, _RESTORED)
    return out


@triton.jit
def _add_and_norm(states, added, norm, out, epsilon, width: tl.constexpr, has_added: tl.constexpr, block: tl.constexpr):
    columns = tl.arange(0, block)
    inside = columns < width
    places = tl.program_id(0).to(tl.int64) * width + columns
    values = tl.load(states + places, mask=inside, other=0.0).to(tl.float32)
    if has_added:
        values += tl.load(added + places, mask=inside, other=0.0).to(tl.float32)
        rounded = values.to(states.dtype.element_ty)
        tl.store(states + places, rounded, mask=inside)
        values = rounded.to(tl.float32)
    scaled = values * tl.rsqrt(tl.sum(values * values, 0) / width + epsilon)
    scaled = scaled.to(out.dtype.element_ty).to(tl.float32)  # as the model rounds it
    scaled *= tl.load(norm + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, scaled.to(out.dtype.element_ty), mask=inside)


def add_and_norm(states: torch.Tensor, added: torch.Tensor | None, norm: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Add `added` to `states`, (rows, width), in place, and give their RMS norm (arXiv:1910.07467)."""
    rows, width = states.shape
    out = torch.empty_like(states)
    block = triton.next_power_of_2(width)
    held = states if added is None else added
    warps = min(16, max(1, block // 512))
    _add_and_norm[(rows,)](states, held, norm, out, epsilon, width, added is not None, block, num_warps=warps)
    return out


@triton.jit
def _gate(joined, out, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * block + tl.arange(0, block)
    inside = columns < width
    gate = tl.load(joined + row * 2 * width + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(joined + row * 2 * width + width + columns, mask=inside, other=0.0).to(tl.float32)
    opened = (gate / (1.0 + tl.exp(-gate))).to(out.dtype.element_ty).to(tl.float32)  # as the model rounds it
    tl.store(out + row * width + columns, (opened * up).to(out.dtype.element_ty), mask=inside)


def gate(joined: torch.Tensor) -> torch.Tensor:
    """`silu(gate) * up`, (rows, width), of both side by side, (rows, 2 * width)."""
    rows, width = joined.shape[0], joined.shape[1] // 2
    out = torch.empty((rows, width), dtype=joined.dtype, device=joined.device)
    _gate[(rows, triton.cdiv(width, _ELEMENTS))](joined, out, width, _ELEMENTS)
    return out


@triton.jit
def _turn_and_keep(
    joined,
    cosine,
    sine,
    query_norm,
    key_norm,
    slots,
    keys,
    values,
    epsilon,
    num_heads: tl.constexpr,
    num_kv_heads: tl.constexpr,
    head_dim: tl.constexpr,
    has_norms: tl.constexpr,
    heads_at_once: tl.constexpr,
    block: tl.constexpr,
    is_early: tl.constexpr,
):
    if is_early:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * heads_at_once + tl.arange(0, heads_at_once)
    half: tl.constexpr = head_dim // 2
    columns = tl.arange(0, block)
    is_column = (columns < half)[None, :]
    is_query = heads < num_heads
    is_key = (heads >= num_heads) & (heads < num_heads + num_kv_heads)
    is_value = (heads >= num_heads + num_kv_heads) & (heads < num_heads + 2 * num_kv_heads)
    places = (row * (num_heads + 2 * num_kv_heads) + heads)[:, None] * head_dim + columns[None, :]
    inside = (heads < num_heads + 2 * num_kv_heads)[:, None] & is_column
    first = tl.load(joined + places, mask=inside, other=0.0)
    second = tl.load(joined + places + half, mask=inside, other=0.0)
    slot = tl.load(slots + row)
    kept = (slot * num_kv_heads + heads)[:, None] * head_dim + columns[None, :]
    at_value = kept - (num_heads + num_kv_heads) * head_dim
    tl.store(values + at_value, first, mask=is_value[:, None] & is_column)
    tl.store(values + at_value + half, second, mask=is_value[:, None] & is_column)

    low = first.to(tl.float32)
    high = second.to(tl.float32)
    if has_norms:
        inverse = tl.rsqrt((tl.sum(low * low, 1) + tl.sum(high * high, 1)) / head_dim + epsilon)[:, None]
        low_norm = tl.load(query_norm + columns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
        high_norm = tl.load(query_norm + half + columns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
        low_key = tl.load(key_norm + columns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
        high_key = tl.load(key_norm + half + columns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
        low *= inverse * tl.where(is_query[:, None], low_norm, low_key)
        high *= inverse * tl.where(is_query[:, None], high_norm, high_key)
    turns = row * head_dim + columns
    low_cosine = tl.load(cosine + turns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
    high_cosine = tl.load(cosine + turns + half, mask=columns < half, other=0.0).to(tl.float32)[None, :]
    low_sine = tl.load(sine + turns, mask=columns < half, other=0.0).to(tl.float32)[None, :]
    high_sine = tl.load(sine + turns + half, mask=columns < half, other=0.0).to(tl.float32)[None, :]
    turned_low = (low * low_cosine - high * low_sine).to(joined.dtype.element_ty)
    turned_high = (high * high_cosine + low * high_sine).to(joined.dtype.element_ty)
    tl.store(joined + places, turned_low, mask=is_query[:, None] & is_column)
    tl.store(joined + places + half, turned_high, mask=is_query[:, None] & is_column)
    at_key = kept - num_heads * head_dim
    tl.store(keys + at_key, turned_low, mask=is_key[:, None] & is_column)
    tl.store(keys + at_key + half, turned_high, mask=is_key[:, None] & is_column)


def turn_and_keep(
    joined: torch.Tensor,
    turns: tuple[torch.Tensor, torch.Tensor],
    norms: tuple[torch.Tensor, torch.Tensor] | None,
    epsilon: float,
    slots: torch.Tensor,
    kept: torch.Tensor,
    *,
    is_early: bool = False,
) -> torch.Tensor:
    """Turn queries and keys by their positions (arXiv:2104.09864), and keep keys and values in the pool.

    Args:
        joined: (rows, heads + 2 * kv heads, head dim): queries, keys, values. The queries are changed in place.
        turns: cosines and sines, (rows, head dim) each.
        norms: of queries and keys, (head dim,) each, done to each head before.
        slots: where in the pool each row's keys and values go, (rows,), int64.
        kept: the pool's layer, (2, tokens, kv heads, head dim).

    Returns:
        The queries, a view of `joined`.
    """
    rows, num_joined, head_dim = joined.shape
    num_kv_heads = kept.shape[2]
    num_heads = num_joined - 2 * num_kv_heads
    query_norm, key_norm = (joined, joined) if norms is None else norms
    _turn_and_keep[(rows, triton.cdiv(num_joined, _HEADS))](
        joined,
        *turns,
        query_norm,
        key_norm,
        slots,
        kept[0],
        kept[1],
        epsilon,
        num_heads,
        num_kv_heads,
        head_dim,
        norms is not None,
        _HEADS,
        triton.next_power_of_2(head_dim // 2),
        is_early,
        **_launch(is_early),
    )
    return joined[:, :num_heads]


@triton.jit
def _attend_rows(
    query,
    keys,
    values,
    starts,
    lengths,
    out,
    largest_of,
    total_of,
    scale,
    window,
    row_stride,
    num_kv_heads: tl.constexpr,
    group: tl.constexpr,
    head_dim: tl.constexpr,
    shares: tl.constexpr,
    group_block: tl.constexpr,
    block: tl.constexpr,
    keys_at_once: tl.constexpr,
    is_early: tl.constexpr,
):
    if is_early:
        gdc_launch_dependents()
        gdc_wait()
    row = tl.program_id(0).to(tl.int64)
    kv_head = tl.program_id(1)
    share = tl.program_id(2)
    heads = kv_head * group + tl.arange(0, group_block)
    is_head = tl.arange(0, group_block) < group
    columns = tl.arange(0, block)
    is_column = columns < head_dim
    start = tl.load(starts + row).to(tl.int64)
    length = tl.load(lengths + row).to(tl.int32)
    first = tl.maximum(length - window, 0)
    # Shares are of whole blocks, but for the last.
    size = tl.cdiv(tl.cdiv(length - first, shares), keys_at_once) * keys_at_once
    begin = first + share * size
    end = tl.minimum(begin + size, length)
    of_query = query + row * row_stride + heads[:, None] * head_dim + columns[None, :]
    asked = tl.load(of_query, mask=is_head[:, None] & is_column[None, :], other=0.0)
    largest = tl.full((group_block,), float("-inf"), tl.float32)
    total = tl.zeros((group_block,), tl.float32)
    sums = tl.zeros((group_block, block), tl.float32)
    for key in range(begin, end, keys_at_once):
        places = key + tl.arange(0, keys_at_once)
        is_key = places < end
        inside = is_key[:, None] & is_column[None, :]
        at = ((start + places)[:, None] * num_kv_heads + kv_head) * head_dim + columns[None, :]
        key_block = tl.load(keys + at, mask=inside, other=0.0)
        scores = tl.dot(asked, tl.trans(key_block)) * scale
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        larger = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - larger[:, None])
        shrink = tl.exp2(largest - larger)
        total = total * shrink + tl.sum(weights, 1)
        value_block = tl.load(values + at, mask=inside, other=0.0)
        sums = sums * shrink[:, None] + tl.dot(weights.to(value_block.dtype), value_block)
        largest = larger
    part = (row * num_kv_heads * group + heads) * shares + share
    if shares > 1:
        tl.store(largest_of + part, largest, mask=is_head)
        tl.store(total_of + part, total, mask=is_head)
    else:
        sums = sums / total[:, None]
    of_out = out + part[:, None] * head_dim + columns[None, :]
    tl.store(of_out, sums.to(out.dtype.element_ty), mask=is_head[:, None] & is_column[None, :])


@triton.jit
def _add_shares(
    sums,
    largest_of,
    total_of,
    out,
    shares: tl.constexpr,
    head_dim: tl.constexpr,
    block: tl.constexpr,
    is_early: tl.constexpr,
):
    if is_early:
        gdc_launch_dependents()
        gdc_wait()
    head = tl.program_id(0).to(tl.int64)
    parts = head * shares + tl.arange(0, shares)
    columns = tl.arange(0, block)
    is_column = columns < head_dim
    largest = tl.load(largest_of + parts)
    shrink = tl.exp2(largest - tl.max(largest, 0))
    total = tl.sum(tl.load(total_of + parts) * shrink, 0)
    held = tl.load(sums + parts[:, None] * head_dim + columns[None, :], mask=is_column[None, :], other=0.0)
    whole = tl.sum(held * shrink[:, None], 0) / total
    tl.store(out + head * head_dim + columns, whole.to(out.dtype.element_ty), mask=is_column)


def attend_rows(
    query: torch.Tensor,
    kept: torch.Tensor,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None,
    out: torch.Tensor,
    *,
    is_early: bool = False,
) -> None:
    """Attention of requests with one row each, to their keys in the pool.

    Args:
        query: (rows, heads, head dim); heads and their numbers lie one after the other, rows may be further apart.
        kept: the pool's layer, (2, tokens, kv heads, head dim).
        starts, lengths: where each request's keys begin and how many they are, its own among them, (rows,).
        window: how many of the last keys are seen; None for all.
        out: (rows, heads, head dim), written.
    """
    rows, num_heads, head_dim = query.shape
    num_kv_heads = kept.shape[2]
    group = num_heads // num_kv_heads
    shares = min(_MOST_SHARES, triton.next_power_of_2(triton.cdiv(_BUSY, rows * num_kv_heads)))
    block = max(16, triton.next_power_of_2(head_dim))
    is_shared = shares > 1
    sums = (
        torch.empty((rows, num_heads, shares, head_dim), dtype=torch.float32, device=out.device) if is_shared else out
    )
    largest, total = torch.empty((2, rows, num_heads, shares), dtype=torch.float32, device=out.device)
    _attend_rows[(rows, num_kv_heads, shares)](
        query,
        kept[0],
        kept[1],
        starts,
        lengths,
        sums,
        largest,
        total,
        scaling / math.log(2),
        _ANY if window is None else window,
        query.stride(0),
        num_kv_heads,
        group,
        head_dim,
        shares,
        max(16, triton.next_power_of_2(group)),
        block,
        _KEYS_AT_ONCE,
        is_early,
        **_launch(is_early),
    )
    if is_shared:
        grid = (rows * num_heads,)
        _add_shares[grid](sums, largest, total, out, shares, head_dim, block, is_early, **_launch(is_early))
