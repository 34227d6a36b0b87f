"""What the Pareto plots draw."""

from __future__ import annotations

import pytest

from dashboard.components.lab_charts import QUALITIES, SIZE, SPEEDS, Point, foot_of, label_positions, pareto_figure
from engine.lab import Estimate
from tests.engine.lab.builders import experiment


def test_points_are_the_variants_that_were_measured() -> None:
    front, points = pareto_figure(experiment(), SIZE, QUALITIES["KL divergence"]).data
    assert list(points.text) == ["float32", "bfloat16"]
    assert list(points.x) == [538.0, 269.0]
    assert list(points.marker.symbol) == ["circle", "circle"]  # one is better, the other smaller
    assert list(front.x) == [269.0, 538.0]


def test_the_original_stands_at_the_foot_of_a_logarithmic_axis() -> None:
    figure = pareto_figure(experiment(), SIZE, QUALITIES["KL divergence"])
    assert figure.layout.yaxis.type == "log"
    assert list(figure.data[1].y) == pytest.approx([0.002 / 3, 0.002])
    assert list(figure.data[1].customdata) == [0.0, 0.002]


def test_what_is_worse_in_both_is_off_the_front() -> None:
    front, points = pareto_figure(experiment(), SPEEDS["1 stream"], QUALITIES["Perplexity"]).data
    assert list(points.marker.symbol) == ["circle", "circle-open"]
    assert list(front.x) == [20.0]
    assert list(points.error_x.array) == [1.0, 1.0]


def test_foot_of_a_logarithmic_axis() -> None:
    assert foot_of([0.0, 0.3, 3.0]) == pytest.approx(0.1)
    assert foot_of([0.0]) is None


def test_names_point_inward_and_alternate() -> None:
    points = [Point(str(x), Estimate(x), Estimate(1.0), 1.0, True) for x in (10.0, 1.0, 9.0)]
    assert label_positions(points) == ["bottom left", "bottom right", "top left"]
    assert label_positions([]) == []
