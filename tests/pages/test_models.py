"""The models page, on a console of fakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine import Console, InstanceState
from engine.errors import WeightsError
from tests.fakes import FakeBackend, wait_until
from tests.pages.conftest import OpenPage, instance, load, texts


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What passes for a model folder until somebody opens it."""
    made = tmp_path / "phone-9b"
    made.mkdir()
    (made / "config.json").write_text("{}")
    return made


def submit(page: AppTest, source: str, name: str = "") -> AppTest:
    page.text_input(key="load-source").set_value(source)
    page.text_input(key="load-name").set_value(name)
    return next(button for button in page.button if button.label == "Load model").click().run()


def test_empty_list_points_at_the_form(open_page: OpenPage) -> None:
    page = open_page("models")
    assert "load one with the form" in page.info[0].value


def test_form_loads_under_the_folders_name(console: Console, open_page: OpenPage, folder: Path) -> None:
    page = submit(open_page("models"), f"  {folder} ")
    assert "phone-9b" in page.success[0].value
    wait_until(lambda: instance(console, "phone-9b").state is InstanceState.READY)
    assert "FakeForCausalLM" in texts(page.run())
    assert instance(console, "phone-9b").spec.device == "auto"


def test_form_passes_name_device_and_dtype(console: Console, open_page: OpenPage, folder: Path) -> None:
    page = open_page("models")
    page.selectbox(key="load-device").set_value("cpu")
    page.selectbox(key="load-dtype").set_value("bfloat16")
    submit(page, str(folder), "mine")
    spec = instance(console, "mine").spec
    assert (spec.name, spec.device, spec.dtype) == ("mine", "cpu", "bfloat16")


@pytest.mark.parametrize(("source", "word"), [("", "empty"), ("/no/such_model", "neither a folder nor a file")])
def test_refused_source_is_one_message_and_stays_typed(
    console: Console, open_page: OpenPage, source: str, word: str
) -> None:
    page = submit(open_page("models"), source)
    assert len(page.error) == 1
    assert word in page.error[0].value
    assert page.text_input(key="load-source").value == source
    assert not console.engine.instances()


def test_name_that_is_taken_is_refused(console: Console, open_page: OpenPage, folder: Path) -> None:
    load(console, "mine")
    page = submit(open_page("models"), str(folder), "mine")
    assert "ready already" in page.error[0].value
    assert len(console.engine.instances()) == 1


def test_facts_and_cache_of_a_ready_model(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    for fact in ("FakeForCausalLM", "1.0 K", "4.0 kB as float32", "512 tokens", "64 B per token", "0123456789ab"):
        assert fact in texts(page)
    assert page.get("progress")[-1].proto.text == "KV cache reserved: 0 of 10,000 tokens (0 B of 640.0 kB)"
    assert "0 restarts" in texts(page)


def test_unload_asks_first(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    page.button(key="unload-phone").click().run()
    assert "**phone** leaves memory" in texts(page)
    assert instance(console, "phone").state is InstanceState.READY
    page.button(key="unload-confirmed").click().run()
    assert not console.engine.instances()
    assert not page.error


def test_unload_can_be_refused(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    page.button(key="unload-phone").click().run()
    page.button(key="unload-refused").click().run()
    assert instance(console, "phone").state is InstanceState.READY
    assert "leaves memory" not in texts(page)


def test_unload_of_what_is_gone_is_one_message(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    page.button(key="unload-phone").click().run()
    console.engine.unload("phone", drain_s=0)
    page.button(key="unload-confirmed").click().run()
    assert "there is no model named 'phone'" in page.error[0].value


def test_failed_load_shows_its_reason_and_reloads(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    backend.load_error = WeightsError("the weights are cut short")
    load(console, "phone", InstanceState.FAILED)
    page = open_page("models")
    assert page.error[0].value == "the weights are cut short"
    backend.load_error = None
    page.button(key="reload-phone").click().run()
    wait_until(lambda: instance(console, "phone").state is InstanceState.READY)
    assert not page.run().error


def test_reload_does_not_wait_for_the_pause(console: Console, backend: FakeBackend, open_page: OpenPage) -> None:
    load(console, "phone")
    for _ in range(4):
        backend.errors.append(MemoryError("no more"))
    wait_until(lambda: instance(console, "phone").num_restarts == 1 and instance(console, "phone").reason is not None)
    page = open_page("models")
    backend.errors.clear()
    page.button(key="reload-phone").click().run()
    wait_until(lambda: instance(console, "phone").state is InstanceState.READY)
    assert backend.num_loads == 2


def test_ready_model_has_no_reload(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    assert "Reload" not in [button.label for button in open_page("models").button]
