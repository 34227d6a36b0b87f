from __future__ import annotations

from dataclasses import replace

from engine.models.architecture import parse_architecture
from engine.models.attention_lines import attention_lines
from engine.models.headers import tensor_info
from engine.models.run_lines import Demand
from engine.models.weight_lines import Kind, Placement
from tests.engine.models.architectures import GPT_2, LLAMA_3_8B

_LLAMA = parse_architecture(LLAMA_3_8B)
_CPU, _GPU = Placement("cpu", "float32"), Placement("cuda:0", "bfloat16")
_DEMAND = Demand(8_192, 4)


def test_the_fused_kernel_takes_nothing_more() -> None:
    assert attention_lines(_LLAMA, _CPU, _DEMAND, 256, "sdpa") == ()


def test_every_score_of_a_chunk_is_there_twice() -> None:
    (line,) = attention_lines(_LLAMA, _CPU, _DEMAND, 256, "eager")
    assert (line.kind, line.num_bytes) == (Kind.WORKING, 32 * 256 * 8_192 * 8)
    (short,) = attention_lines(_LLAMA, _CPU, Demand(100), 256, "eager")
    assert short.num_bytes == 32 * 100 * 100 * 8


def test_smaller_dtypes_have_a_layers_keys_and_values_copied() -> None:
    (line,) = attention_lines(_LLAMA, _GPU, _DEMAND, 256, "eager")
    assert line.num_bytes == 32 * 256 * 8_192 * 8 + 8_192 * 2 * 1_024 * 4
    assert "2,048 x 4 B" in line.how


def test_what_the_fused_kernel_writes_out_too_is_not_counted_again() -> None:
    float32 = replace(_GPU, dtype="float32")
    assert attention_lines(_LLAMA, float32, _DEMAND, 256, "eager") == ()
    assert attention_lines(parse_architecture(GPT_2), float32, Demand(1_024), 256, "eager")


def test_soft_caps_and_sinks_are_computed_eagerly_whatever_was_asked() -> None:
    capped = parse_architecture({**LLAMA_3_8B, "attn_logit_softcapping": 50.0})
    sinks = parse_architecture(LLAMA_3_8B, [tensor_info("model.layers.0.self_attn.sinks", "BF16", (32,))])
    for shape in (capped, sinks):
        assert attention_lines(shape, _CPU, _DEMAND, 256, "sdpa") == attention_lines(
            _LLAMA, _CPU, _DEMAND, 256, "eager"
        )
