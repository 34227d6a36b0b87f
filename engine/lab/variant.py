"""One way to hold the same weights: a dtype, or a quantization."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.models.spec import Device, DType, Granularity, ModelSpec, Quantization, Scheme

# What the good defaults keep, on a CPU and on a GPU (engine/models/schemes.py).
_USUALLY_KEPT = ((), ("lm_head",))


@dataclass(frozen=True, slots=True)
class Variant:
    """`dtype` is what the unquantized weights, and all activations, are held in."""

    dtype: DType = "auto"
    quantization: Quantization | None = None

    @property
    def label(self) -> str:
        """Its name in tables: `bfloat16`, `int4-weight, group of 32, affine`. Defaults are not named."""
        if self.quantization is None:
            return self.dtype
        on = () if self.dtype == "auto" else (f"on {self.dtype}",)
        return ", ".join((self.quantization.scheme.value, *_details(self.quantization), *on))

    def spec(self, source: str, device: Device, prompts: tuple[str, ...] = (), name: str | None = None) -> ModelSpec:
        """What loads this variant of `source`; static INT8 measures activations on `prompts`."""
        quantization = self.quantization
        if quantization is not None and quantization.scheme is Scheme.INT8_STATIC:
            quantization = replace(quantization, prompts=prompts)
        return ModelSpec(source, name, device, self.dtype, quantization)


def _details(quantization: Quantization) -> tuple[str, ...]:
    parts: list[str] = []
    if quantization.granularity is Granularity.GROUP:
        parts.append("per group" if quantization.group_size is None else f"group of {quantization.group_size}")
    elif quantization.granularity is Granularity.TENSOR:
        parts.append("per tensor")
    if not quantization.is_symmetric:
        parts.append("affine")
    if quantization.keep not in _USUALLY_KEPT:
        parts.append(f"keeps {', '.join(quantization.keep)}")
    return tuple(parts)
