from __future__ import annotations

from dataclasses import replace
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.components.telemetry_charts import gpu_charts, host_charts
from dashboard.components.telemetry_history import gpu_of, history_figure, of_gpu, scaled, sparkline, thin
from engine.telemetry import GpuInventory, GpuReading, Sample
from tests.dashboard.components.samples import sample

VALUES = st.lists(st.none() | st.floats(0, 1e6), max_size=400)


@given(VALUES, st.integers(1, 100))
def test_thinned_values_are_few_and_stay_within_bounds(values: list[float | None], num_points: int) -> None:
    thinned = thin(values, num_points)
    assert len(thinned) == min(len(values), num_points)
    present = [value for value in values if value is not None]
    for value in thinned:
        assert value is None or min(present) * 0.999 <= value <= max(present) * 1.001


def test_short_history_is_left_alone() -> None:
    assert thin([1.0, None, 3.0], 3) == [1.0, None, 3.0]


def test_stretch_without_values_stays_a_gap() -> None:
    assert thin([None, None, 1.0, 3.0], 2) == [None, 2.0]


def test_sparkline_needs_two_points() -> None:
    def read(one: Sample) -> float | None:
        return one.host.cpu_ratio

    assert sparkline([sample(cpu_ratio=None), sample(cpu_ratio=0.5)], read) is None
    assert sparkline([sample(cpu_ratio=0.25), sample(cpu_ratio=None), sample(cpu_ratio=0.5)], read) == [0.25, 0.5]


def test_gpu_is_found_by_its_index_and_may_be_gone() -> None:
    with_gpu = sample(GpuReading(1, power_w=300.0))
    assert gpu_of(with_gpu, 0) is None
    assert of_gpu(1, "power_w", 2.0)(with_gpu) == 600.0
    assert of_gpu(1, "temperature_c")(with_gpu) is None
    assert of_gpu(1, "power_w")(sample()) is None


def test_scaled_none_is_none() -> None:
    assert scaled(lambda one: one.host.cpu_ratio, 100)(sample(cpu_ratio=None)) is None


def test_every_host_chart_draws() -> None:
    samples = [replace(sample(), taken_at_s=1_700_000_000.0 + second) for second in range(3)]
    for chart in host_charts():
        figure = history_figure(chart, samples, UTC)
        assert [trace.name for trace in figure.data] == list(chart.lines)
        assert all(len(trace.x) == 3 for trace in figure.data)
        assert chart.unit in figure.layout.yaxis.title.text


def test_long_history_is_thinned_on_both_axes() -> None:
    samples = [replace(sample(), taken_at_s=1_700_000_000.0 + second) for second in range(900)]
    (line,) = history_figure(host_charts()[0], samples, UTC).data
    assert len(line.x) == len(line.y) == 300


def test_gpu_charts_have_a_line_a_gpu() -> None:
    inventory = GpuInventory((GpuReading(0), GpuReading(3)))
    charts = gpu_charts(replace(sample(), gpu=inventory))
    assert [list(chart.lines) for chart in charts] == [["GPU 0", "GPU 3"]] * 4
    assert gpu_charts(sample()) == ()


@pytest.mark.parametrize(("title", "expected"), [("CPU", 50.0), ("Memory", 6.0), ("Disk", 2.0), ("Network", 4.0)])
def test_values_are_in_the_unit_of_the_axis(title: str, expected: float) -> None:
    chart = next(chart for chart in host_charts() if chart.title == title)
    assert next(iter(chart.lines.values()))(sample()) == pytest.approx(expected)
