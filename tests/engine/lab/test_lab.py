"""Whole experiments: on a tiny random Llama, and on the sample model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Settings
from engine.errors import InvalidRequestError, StoreError, WeightsError
from engine.lab import (
    Estimate,
    Experiment,
    ExperimentRunningError,
    ExperimentStatus,
    Lab,
    LabProgress,
    Plan,
    Step,
    Variant,
)
from engine.models.spec import Quantization, Scheme
from engine.state import open_database
from tests.conftest import weights_cache_folder
from tests.engine.weights.hub_server import Fault, HubServer, serve_hub
from tests.fakes import wait_until

TIMEOUT_S = 150.0


@pytest.fixture
def load_lock() -> threading.Lock:
    return threading.Lock()


@pytest.fixture
def steps() -> list[int]:
    """How many steps the instances have run."""
    return [0]


@pytest.fixture
def lab(tmp_path: Path, load_lock: threading.Lock, steps: list[int]) -> Iterator[Lab]:
    (tmp_path / "weights").symlink_to(weights_cache_folder(), target_is_directory=True)
    with open_database("sqlite://") as database:
        opened = Lab(Settings(home=tmp_path, model="none"), database, load_lock, lambda: sum(steps))
        yield opened
        opened.close()


@pytest.fixture
def plan(tiny_folder: Path) -> Plan:
    """As little as can be measured."""
    return Plan(
        str(tiny_folder),
        (Variant("bfloat16"),),
        ("one", "two"),
        device="cpu",
        num_text_tokens=64,
        repeats=1,
        answer_tokens=4,
        speed_tokens=2,
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub on loopback, and a weights cache of its own for what comes from it."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (tmp_path / "weights").unlink()
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        yield server


def run(lab: Lab, plan: Plan) -> Experiment:
    """The experiment, once it has ended."""
    experiment_id = lab.start(plan)
    lab.wait(TIMEOUT_S)
    found = lab.store.get(experiment_id)
    assert found is not None
    return found


def test_a_real_experiment(lab: Lab, plan: Plan) -> None:
    seen: list[LabProgress] = []
    experiment_id = lab.start(replace(plan, repeats=2))
    while (progress := lab.progress()) is not None:
        seen.append(progress)
        time.sleep(0.002)
    found = lab.store.get(experiment_id)
    assert found is not None
    assert (found.status, lab.error) == (ExperimentStatus.DONE, None)
    original, half = found.results
    assert [result.label for result in found.results] == ["float32", "bfloat16"]
    assert original.weights_bytes == 2 * (half.weights_bytes or 0)
    assert original.quality is not None
    assert half.quality is not None
    assert original.quality.kl == Estimate(0.0)
    assert half.quality.kl is not None
    assert 0 < half.quality.kl.value < 0.01
    assert half.quality.perplexity_ratio is not None
    assert half.quality.perplexity_ratio.value == pytest.approx(1.0, abs=0.05)
    assert [len(result.answers) for result in found.results] == [2, 2]
    for result in found.results:
        assert result.speed is not None
        assert result.speed.eight_streams_tokens_per_s.value > 0
        assert (result.error, result.was_disturbed) == (None, False)
    ratios = [progress.ratio for progress in seen]
    assert ratios == sorted(ratios)
    assert {Step.QUALITY, Step.SPEED} <= {progress.step for progress in seen}


def test_a_variant_that_fails_does_not_stop_the_others(lab: Lab, plan: Plan) -> None:
    fp8 = Variant("auto", Quantization(Scheme.FP8_WEIGHT))
    found = run(lab, replace(plan, variants=(fp8, Variant("bfloat16"))))
    assert found.status is ExperimentStatus.DONE
    _, refused, half = found.results
    assert refused.error is not None
    assert "needs a GPU" in refused.error
    assert (refused.quality, refused.speed) == (None, None)
    assert half.error is None


def test_without_the_original_the_others_are_measured_alone(lab: Lab, plan: Plan) -> None:
    fp8 = Variant("auto", Quantization(Scheme.FP8_WEIGHT))
    _, half = run(lab, replace(plan, reference=fp8)).results
    assert half.quality is not None
    assert half.quality.kl is None
    assert half.quality.perplexity.value > 1


def test_cancelling_keeps_what_was_measured(lab: Lab, plan: Plan) -> None:
    experiment_id = lab.start(replace(plan, variants=(Variant("bfloat16"), Variant("float16")), repeats=20))
    wait_until(lambda: (progress := lab.progress()) is not None and progress.index == 1, TIMEOUT_S)
    lab.cancel()
    began_s = time.monotonic()
    lab.wait(TIMEOUT_S)
    assert time.monotonic() - began_s < 15  # within a step; loaded machines take their time
    found = lab.store.get(experiment_id)
    assert found is not None
    assert found.status is ExperimentStatus.CANCELLED
    assert [result.label for result in found.results] == ["float32"]
    assert (lab.progress(), lab.error) == (None, None)


def test_one_at_a_time_and_waiting_for_the_load_lock_can_be_cancelled(
    lab: Lab, plan: Plan, load_lock: threading.Lock
) -> None:
    with load_lock:
        lab.start(plan)
        wait_until(lambda: (progress := lab.progress()) is not None and progress.step is Step.WAITING, TIMEOUT_S)
        with pytest.raises(ExperimentRunningError, match="wait for it, or cancel it"):
            lab.start(plan)
        lab.cancel()
        lab.wait(TIMEOUT_S)
    assert lab.progress() is None
    assert not load_lock.locked()


def test_requests_meanwhile_are_noted(lab: Lab, plan: Plan, steps: list[int]) -> None:
    experiment_id = lab.start(plan)
    wait_until(lambda: (progress := lab.progress()) is not None and progress.index == 1, TIMEOUT_S)
    wait_until(lambda: (progress := lab.progress()) is None or progress.step is Step.SPEED, TIMEOUT_S)
    steps.append(1)
    lab.wait(TIMEOUT_S)
    found = lab.store.get(experiment_id)
    assert found is not None
    assert [result.was_disturbed for result in found.results] == [False, True]


def test_what_cannot_begin_is_refused_at_once(lab: Lab, plan: Plan) -> None:
    with pytest.raises(InvalidRequestError, match="no variant is chosen"):
        lab.start(replace(plan, variants=()))
    with pytest.raises(WeightsError, match="neither a folder nor"):
        lab.start(replace(plan, source="/nowhere/model"))
    assert lab.store.list() == ()


def test_a_model_of_the_hub_is_fetched_first(lab: Lab, plan: Plan, hub: HubServer, tiny_folder: Path) -> None:
    hub.publish("acme/tiny", {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
    found = run(lab, replace(plan, source="acme/tiny"))
    assert (found.status, lab.error) == (ExperimentStatus.DONE, None)
    assert [result.error for result in found.results] == [None, None]
    assert found.plan.source == "acme/tiny"
    assert len(hub.requests("model.safetensors")) == 1


def test_fetching_has_progress_and_can_be_cancelled(
    lab: Lab, plan: Plan, hub: HubServer, tiny_folder: Path, load_lock: threading.Lock
) -> None:
    hub.publish("acme/tiny", {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
    hub.fail("model.safetensors", Fault(bytes_per_s=1_000))
    experiment_id = lab.start(replace(plan, source="acme/tiny"))
    wait_until(lambda: (progress := lab.progress()) is not None and bool(progress.fraction), TIMEOUT_S)
    progress = lab.progress()
    assert progress is not None
    assert (progress.step, progress.ratio) == (Step.FETCHING, 0.0)
    assert not load_lock.locked()
    lab.cancel()
    lab.wait(TIMEOUT_S)
    found = lab.store.get(experiment_id)
    assert found is not None
    assert (found.status, found.results, lab.error) == (ExperimentStatus.CANCELLED, (), None)


def test_a_model_that_the_hub_has_not_is_one_sentence(lab: Lab, plan: Plan, hub: HubServer) -> None:
    found = run(lab, replace(plan, source="acme/nothing"))
    assert found.results == ()
    assert lab.error is not None
    assert "acme/nothing" in lab.error


def test_results_that_cannot_be_kept_are_told(lab: Lab, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_experiment: Experiment) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(lab.store, "keep", fail)
    lab.start(plan)
    lab.wait(TIMEOUT_S)
    assert lab.error == "the results are not kept: the disk is full"


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sample_model(lab: Lab) -> None:
    plan = Plan(
        "sample",
        (Variant("bfloat16"),),
        ("What is the capital of France?",),
        device="cpu",
        num_text_tokens=128,
        repeats=1,
        answer_tokens=10,
        speed_tokens=2,
    )
    lab.start(plan)
    lab.wait(500)
    latest = lab.store.latest()
    assert latest is not None
    assert latest.status is ExperimentStatus.DONE
    original, half = latest.results
    assert (original.error, half.error) == (None, None)
    assert "Paris" in original.answers[0].text
    assert original.quality is not None
    assert half.quality is not None
    assert half.quality.kl is not None
    assert 5 < original.quality.perplexity.value < 60
    assert 0 < half.quality.kl.value < 0.05
