from __future__ import annotations

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.memory_plan import (
    alternative_line,
    comparison_table,
    comparison_text,
    line_rows,
    measured_text,
    plan_figure,
    reading_notes,
    verdict_look,
)
from engine.models.budget import Budget
from engine.models.comparison import Comparison, Measured, MemoryReading
from engine.models.footprint import footprint_of
from engine.models.headers import tensor_info
from engine.models.plan import MemoryPlan, Verdict, plan_memory
from engine.models.run_lines import Demand
from engine.models.spec import ModelSpec

_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4_096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14_336,
    "vocab_size": 128_256,
    "max_position_embeddings": 8_192,
}
_FOOTPRINT = footprint_of(
    _CONFIG,
    [
        tensor_info("model.embed_tokens.weight", "BF16", (128_256, 4_096)),
        *(tensor_info(f"model.layers.{i}.mlp.up_proj.weight", "BF16", (53_248, 4_096)) for i in range(32)),
        tensor_info("lm_head.weight", "BF16", (128_256, 4_096)),
    ],
)


def _plan(free_gb: float, demand: Demand | None = None) -> MemoryPlan:
    budget = Budget("cuda:0", int(free_gb * 1e9), "free on GPU 0, NVIDIA H100", chunk_tokens=2_048)
    return plan_memory(_FOOTPRINT, ModelSpec("/models/my_8b", "my_8b"), budget, demand or Demand(8_192, 4))


def test_rows_have_shares_that_add_up() -> None:
    rows = line_rows(_plan(80).lines)
    assert sum(rows["Share"]) == pytest.approx(100)
    assert {len(column) for column in rows.values()} == {len(_plan(80).lines)}
    assert rows["Memory"][0].endswith("GB")
    assert line_rows([]) == {"What": [], "Memory": [], "Share": [], "How": []}


def test_the_bars_are_the_plan() -> None:
    plan = _plan(24)
    figure = plan_figure(plan)
    serving, loading = (sum(trace.x[index] for trace in figure.data) for index in (0, 1))
    assert serving == pytest.approx(plan.steady_bytes / 1e9)
    assert loading == pytest.approx(plan.loading_bytes / 1e9)
    assert figure.layout.shapes[0].x0 == pytest.approx(24)


def test_free_memory_is_not_marked_where_it_is_far_away() -> None:
    assert not plan_figure(_plan(500)).layout.shapes


def test_every_verdict_has_a_look() -> None:
    assert verdict_look(Verdict.FITS)[0] == "green"
    assert verdict_look(Verdict.DOES_NOT_FIT)[0] == "red"
    assert {verdict_look(verdict)[0] for verdict in Verdict} == {"green", "orange", "red"}


def test_alternatives_say_whether_they_fit() -> None:
    fits, does_not = _plan(20).alternatives[0], _plan(12).alternatives[0]
    assert alternative_line(fits).startswith(":green[")
    assert "needed" in alternative_line(fits)
    assert "loading takes" in alternative_line(does_not)


def test_planned_beside_measured() -> None:
    rows = [Comparison("weights", 1_050_000_000, 1_000_000_000), Comparison("KV cache", 0, 0)]
    assert comparison_table(rows).splitlines() == [
        "| What | Planned | Measured | Off by |",
        "| --- | ---: | ---: | ---: |",
        "| weights | 1.1 GB | 1.0 GB | +5.0% |",
        "| KV cache | 0 B | – | – |",
    ]
    assert comparison_text(rows) == ":green-badge[within 10%: off by 5.0% at most]"
    assert comparison_text([replace(rows[0], predicted_bytes=500_000_000)]).startswith(":orange-badge[beyond 10%")
    assert comparison_text(rows[1:]) == ":gray-badge[nothing measured yet]"


def test_every_difference_is_told_in_words_and_so_is_what_cannot_be() -> None:
    measured = Measured("cpu", 1_000_000_000, 0, 0, None)
    rows = (Comparison("weights", 1_000_000_001, 1_000_000_000), Comparison("the process", 900_000, 1_000_000))
    reading = MemoryReading(measured, rows, ("by how much it grew: others were loaded",))
    assert reading_notes(reading) == [
        "Weights: as planned.",
        "The process: 0.1 MB more than planned: a larger tokenizer, buffers of the libraries, or free memory that the "
        "allocator keeps.",
        "Not told: by how much it grew: others were loaded.",
    ]
    assert measured_text(reading) == "Measured: weights 1.0 GB, growth of the process –"
    assert measured_text(replace(reading, measured=replace(measured, process_bytes=2_000))).endswith("process 2.0 kB")


def _page(free_gb: float) -> None:
    from dashboard.components.memory_plan import show_comparison, show_plan
    from engine.models.comparison import Comparison, Measured, MemoryReading
    from tests.dashboard.components.test_memory_plan import _plan

    show_plan(_plan(free_gb))
    show_comparison(MemoryReading(Measured("cpu", 10, 0, 0, None), (Comparison("weights", 11, 10),)))


@pytest.mark.parametrize(("free_gb", "words"), [(80, "fits"), (20, "fits with"), (1, "does not fit")])
def test_a_page_shows_it(free_gb: float, words: str) -> None:
    app = AppTest.from_function(_page, args=(free_gb,)).run()
    assert not app.exception
    heading = app.markdown[0].value
    assert words in heading
    assert r"my\_8b" in heading
    assert len(app.dataframe) == 2
    assert ("Otherwise" in " ".join(item.value for item in app.markdown)) == (free_gb < 80)
