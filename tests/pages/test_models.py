"""The models page, on a console of fakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.formats import plain
from engine import Console, InstanceState
from engine.errors import WeightsError
from engine.instance import Role
from engine.models.spec import Granularity, ModelSpec, Quantization, Scheme
from engine.room import Unloaded
from tests.engine.weights.hub_models import REPO
from tests.engine.weights.hub_server import serve_hub
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


def test_form_passes_quantization_context_and_places(console: Console, open_page: OpenPage, folder: Path) -> None:
    page = open_page("models")
    page.selectbox(key="load-scheme").set_value("int8-weight").run()
    assert "Weights in 8 bits" in texts(page)
    page.selectbox(key="load-int8-weight-granularity").set_value(Granularity.GROUP).run()
    page.selectbox(key="load-int8-weight-group").set_value(64)
    page.toggle(key="load-int8-weight-symmetric").set_value(False)
    page.text_input(key="load-int8-weight-keep").set_value(" lm_head, o_proj ")
    page.number_input(key="load-context").set_value(4096)
    page.number_input(key="load-running").set_value(2)
    submit(page, str(folder), "mine")
    spec = instance(console, "mine").spec
    keep = ("lm_head", "o_proj")
    assert spec.quantization == Quantization(Scheme.INT8_WEIGHT, Granularity.GROUP, 64, False, keep)
    assert (spec.context_length, spec.max_running) == (4096, 2)


def test_each_scheme_starts_with_its_good_default(console: Console, open_page: OpenPage, folder: Path) -> None:
    page = open_page("models")
    page.selectbox(key="load-scheme").set_value("int4-weight").run()
    submit(page, str(folder), "mine")
    chosen = instance(console, "mine").spec.quantization
    assert chosen is not None
    assert (chosen.scheme, chosen.granularity, chosen.group_size) == (Scheme.INT4_WEIGHT, Granularity.GROUP, 32)


def test_what_the_cpu_cannot_multiply_is_said_beforehand(open_page: OpenPage) -> None:
    page = open_page("models")
    page.selectbox(key="load-device").set_value("cpu").run()
    page.selectbox(key="load-scheme").set_value("fp8-weight").run()
    assert "needs a GPU of compute capability 8.9" in page.warning[0].value


def test_swap_shows_both_versions_and_can_be_cancelled(
    console: Console, backend: FakeBackend, open_page: OpenPage
) -> None:
    load(console, "phone")
    page = open_page("models")
    backend.load_gate.clear()
    page.button(key="swap-phone").click().run()
    assert "**phone** answers on" in texts(page)
    page.selectbox(key="swap-phone-1-dtype").set_value("bfloat16")
    page.button(key="swap-confirmed").click().run()
    wait_until(lambda: console.engine.instances()[-1].state is InstanceState.LOADING)
    page.run()
    assert "version 2 · next" in texts(page)
    assert page.button(key="swap-phone").disabled
    following = console.engine.instances()[-1]
    assert (following.spec.dtype, following.spec.name) == ("bfloat16", "phone")
    page.button(key="end-swap-phone").click().run()
    wait_until(lambda: len(console.engine.instances()) == 1)
    backend.load_gate.set()
    assert "version 2" not in texts(page.run())


def test_swap_goes_through(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    page.button(key="swap-phone").click().run()
    page.button(key="swap-confirmed").click().run()
    wait_until(lambda: [(info.version, info.role) for info in console.engine.instances()] == [(2, Role.SERVING)])
    assert "answers on" not in texts(page.run())
    assert ":violet-badge[version 2]" in texts(page)


def test_swap_to_nothing_is_one_message_and_stays_open(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    page.button(key="swap-phone").click().run()
    page.text_input(key="swap-phone-1-source").set_value("/no/such_model")
    page.button(key="swap-confirmed").click().run()
    assert "neither a folder nor a file" in page.error[0].value
    page.text_input(key="swap-phone-1-source").set_value(" ")
    page.button(key="swap-confirmed").click().run()
    assert "Source is empty" in page.error[0].value
    page.button(key="swap-refused").click().run()
    assert len(console.engine.instances()) == 1
    assert "answers on" not in texts(page)


def test_swap_that_failed_shows_why_and_is_dismissed(
    console: Console, backend: FakeBackend, open_page: OpenPage
) -> None:
    load(console, "phone")
    backend.load_error = WeightsError("the weights are cut short")
    console.engine.swap("phone", instance(console, "phone").spec)
    wait_until(lambda: [info.role for info in console.engine.instances()] == [Role.SERVING, Role.NEXT])
    wait_until(lambda: console.engine.instances()[-1].state is InstanceState.FAILED)
    page = open_page("models")
    assert page.error[0].value == "the weights are cut short"
    assert not page.button(key="swap-phone").disabled
    page.button(key="end-swap-phone").click().run()
    assert not page.run().error


def test_models_are_kept_only_where_they_might_be_unloaded(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    assert not page.toggle
    console.engine.unload_idle = True
    page.run()
    page.toggle(key="pin-phone").set_value(True).run()
    assert instance(console, "phone").is_pinned
    assert "not used yet · stays loaded" in texts(page.run())
    console.engine.pin("phone", False)
    assert not page.run().toggle(key="pin-phone").value
    assert not instance(console, "phone").is_pinned


def test_memory_that_was_measured_is_shown_with_what_could_not_be_told(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("models")
    assert "**Memory, planned and measured**" in texts(page)
    assert "Measured: weights 4.0 kB, growth of the process 4.0 kB" in texts(page)
    assert plain("Not told: what was planned: this engine makes no plans.") in texts(page)


def test_who_was_unloaded_to_make_room_is_shown_and_loads_again(
    console: Console, open_page: OpenPage, folder: Path
) -> None:
    assert "Unloaded to make room" not in texts(open_page("models"))
    gone = Unloaded("phone", ModelSpec(str(folder), "phone"), "next", console.clock.wall(), 90.0, 4_000)
    console.engine._unloaded.appendleft(gone)
    page = open_page("models")
    assert "**phone** was unloaded just now to make room for **next**: nobody had used it for 1 min 30 s" in texts(page)
    page.button(key="load-again-0").click().run()
    wait_until(lambda: instance(console, "phone").state is InstanceState.READY)
    page.run()
    assert "load-again-0" not in [button.key for button in page.button]
    assert "**phone** was unloaded" in texts(page)


def test_the_source_of_the_url_is_filled_in_and_planned_before_it_is_pulled(
    open_page: OpenPage, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("models", load=REPO)
    assert page.text_input(key="load-source").value == REPO
    page.button(key="load-plan").click().run()
    assert "is switched off by HF_HUB_OFFLINE=1: unset it" in page.error[0].value.replace("\\", "")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.publish(REPO, {file.name: file.read_bytes() for file in tiny_folder.iterdir()})
        page.button(key="load-plan").click().run()
    assert not page.error
    assert plain(f"pulling {REPO}@main downloads ") in texts(page)
    assert any(block.value.startswith("##### :green[:material/check_circle: tiny fits on") for block in page.markdown)
