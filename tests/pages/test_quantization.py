"""The quantization page over kept experiments and one that waits for its turn to load."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from streamlit.testing.v1 import AppTest

from engine import Console, InstanceState, ModelSpec
from engine.lab import ExperimentStatus, Lab, Step
from tests.engine.lab.builders import experiment
from tests.fakes import wait_until
from tests.pages.conftest import OpenPage, instance, load, texts


@pytest.fixture
def lab(console: Console) -> Lab:
    return console.lab


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label == label).click().run()


def test_without_an_experiment_it_says_what_to_do(open_page: OpenPage, lab: Lab) -> None:
    page = open_page("quantization")
    assert "No experiment yet" in page.info[0].value
    assert "No experiment is kept yet" in texts(page)
    assert page.selectbox(key="source").value == "sample"
    assert page.multiselect(key="variants").value == ["bfloat16", "int8-weight"]


def test_run_follow_and_cancel(console: Console, open_page: OpenPage, lab: Lab) -> None:
    load(console, "served")  # its source is the first of the choices
    with console.engine.load_lock:
        page = press(open_page("quantization"), "Run the experiment")
        wait_until(lambda: (progress := lab.progress()) is not None and progress.step is Step.WAITING, 60)
        page.run()
        assert next(button for button in page.button if button.label == "Run the experiment").disabled
        assert page.dataframe[0].value["Status"][0] == "running"
        press(page, "Cancel")
        lab.wait(30)
    page.run()
    assert "No variant had ended" in page.info[0].value
    assert "cancelled" in texts(page)
    assert page.dataframe[0].value["Status"][0] == "cancelled"


def test_a_reload_finds_the_run_under_way(console: Console, open_page: OpenPage, lab: Lab) -> None:
    load(console, "served")
    with console.engine.load_lock:
        press(open_page("quantization"), "Run the experiment")
        again = open_page("quantization")
        assert "Cancel" in [button.label for button in again.button]
        progress = lab.progress()
        assert progress is not None
        assert again.query_params["run"] == progress.experiment.id
        lab.close()


def test_a_plan_without_variants_is_refused(open_page: OpenPage, lab: Lab) -> None:
    page = open_page("quantization")
    page.multiselect(key="variants").set_value([]).run()
    press(page, "Run the experiment")
    assert "no variant is chosen" in page.error[0].value


def test_what_cannot_run_here_is_left_out_with_the_reason(open_page: OpenPage, lab: Lab, console: Console) -> None:
    if console.nvml.read().gpus:
        pytest.skip("this machine has a GPU")
    page = open_page("quantization", variants=["fp8-weight", "bfloat16"])
    assert "needs a GPU of compute capability 8.9" in page.warning[0].value


def test_results_of_the_latest(open_page: OpenPage, lab: Lab) -> None:
    lab.store.keep(experiment())
    page = open_page("quantization")
    quality, speed = page.dataframe[0].value, page.dataframe[1].value
    assert list(quality["Variant"]) == ["float32 (original)", "bfloat16", "int4-weight, group of 32"]
    assert quality["Δ weights"][1] == pytest.approx(-50)
    assert speed["Δ 1 stream"][1] == pytest.approx(-25)
    assert "there is no room" in page.error[0].value
    assert "the same as the original's" in texts(page)
    assert [button.label for button in page.get("download_button")] == ["CSV", "JSON"]


def test_an_experiment_from_the_url(open_page: OpenPage, lab: Lab) -> None:
    lab.store.keep(replace(experiment("old", 1.0), status=ExperimentStatus.INTERRUPTED))
    lab.store.keep(experiment("new", 2.0))
    assert "interrupted" in texts(open_page("quantization", run="old"))
    unknown = open_page("quantization", run="nobody")
    assert "no longer kept" in unknown.warning[0].value
    assert "interrupted" not in texts(unknown)


def test_load_this_one(console: Console, open_page: OpenPage, lab: Lab) -> None:
    (folder := console.settings.home / "model").mkdir()
    (folder / "config.json").write_text("{}")
    kept = experiment()
    lab.store.keep(replace(kept, plan=replace(kept.plan, source=str(folder))))
    page = open_page("quantization")
    page.selectbox(key="load-one").select("bfloat16").run()
    page = press(page, "Load this one")
    assert "is loading" in page.success[0].value
    wait_until(lambda: instance(console, "model-bfloat16").state is InstanceState.READY)
    assert instance(console, "model-bfloat16").spec.dtype == "bfloat16"


def test_requests_during_a_run_are_told(open_page: OpenPage, lab: Lab) -> None:
    kept = experiment()
    lab.store.keep(replace(kept, results=(replace(kept.results[0], was_disturbed=True),)))
    assert "Requests ran in this process while float32" in open_page("quantization").warning[0].value


def test_a_model_is_quantized_saved_and_can_be_loaded(console: Console, open_page: OpenPage, tiny_folder: Path) -> None:
    console.engine.load(ModelSpec(str(tiny_folder)))  # its source is the first of the choices
    page = open_page("quantization")
    assert page.selectbox(key="save-scheme").options[0] == "int8-weight"
    page.selectbox(key="save-device").set_value("cpu").run()
    proposed = console.settings.home / "quantized" / "tiny-int8-weight"
    assert page.text_input(key="save-folder").placeholder == str(proposed)
    page.button(key="save-submit").click().run()
    console.quantizing.wait(60)
    page.run()
    assert not page.error
    assert re.match(r"\*\*tiny\*\* as int8-weight is saved: .* on disk, \d+ % of the 189.6 kB", page.success[0].value)
    assert (proposed / "config.json").is_file()
    (link,) = [element.proto for element in page.get("page_link") if element.proto.label == "Load it"]
    assert (link.page, unquote(link.query_string)) == ("models", f"load={proposed}")
    assert page.text_input(key="save-folder").placeholder == f"{proposed}-2"
    page.text_input(key="save-folder").set_value("tiny-int8-weight").run()
    page.button(key="save-submit").click().run()
    assert "name a folder that is new or empty" in page.error[0].value


def test_quantizing_is_followed_and_cancelled(console: Console, open_page: OpenPage) -> None:
    load(console, "served")
    with console.engine.load_lock:
        page = open_page("quantization")
        page.button(key="save-submit").click().run()
        wait_until(lambda: (now := console.quantizing.progress()) is not None and now.stage.startswith("waiting"))
        shown = page.run().get("progress")[0].proto.text
        assert "waiting for another model to load" in shown
        assert page.button(key="save-submit").disabled
        page.button(key="save-cancel").click().run()
        console.quantizing.wait(30)
    page.run()
    assert "was cancelled; nothing was written" in texts(page)
    assert not (console.settings.home / "quantized").exists()


def test_what_cannot_be_quantized_says_why(console: Console, open_page: OpenPage) -> None:
    load(console, "served")
    page = open_page("quantization")
    page.button(key="save-submit").click().run()
    console.quantizing.wait(60)
    (error,) = page.run().error
    assert "fake-model" in error.value
    assert not page.success
    assert not (console.settings.home / "quantized").exists()
