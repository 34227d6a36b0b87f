"""The fields of loading and swapping: attention, and which quantizations are offered where."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from engine.models.schemes import Ability, default_quantization
from engine.models.spec import ModelSpec, Scheme

# What the script under test draws and gives; AppTest runs it in this process.
STAGE: dict[str, Any] = {}


def script() -> None:
    from dashboard.components.spec_form import choose_spec
    from tests.dashboard.components.test_spec_form import STAGE

    STAGE["spec"] = choose_spec("x", STAGE["start"], 8)


def draw(start: ModelSpec) -> AppTest:
    STAGE.update(start=start)
    page = AppTest.from_function(script, default_timeout=20).run()
    assert not page.exception
    return page


def test_attention_is_chosen() -> None:
    page = draw(ModelSpec("m"))
    assert page.selectbox(key="x-attention").options == ["auto", "sdpa", "eager"]
    assert STAGE["spec"].attention == "auto"
    page.selectbox(key="x-attention").set_value("eager").run()
    assert STAGE["spec"].attention == "eager"
    draw(ModelSpec("m", attention="sdpa"))
    assert STAGE["spec"].attention == "sdpa"


def test_bitsandbytes_is_offered_on_a_card_with_the_package_only(monkeypatch: pytest.MonkeyPatch) -> None:
    page = draw(ModelSpec("m", device="cuda"))
    assert ("bnb-nf4" in page.selectbox(key="x-scheme").options) == Ability("cuda").has_bitsandbytes
    monkeypatch.setattr("dashboard.components.spec_form.offered_schemes", lambda ability: offered(ability))
    assert "bnb-nf4" in draw(ModelSpec("m", device="cuda")).selectbox(key="x-scheme").options
    assert "bnb-nf4" not in draw(ModelSpec("m")).selectbox(key="x-scheme").options


def offered(ability: Ability) -> tuple[Scheme, ...]:
    """As if the package were there."""
    return tuple(Scheme) if ability.kind == "cuda" else (Scheme.INT8_WEIGHT,)


@pytest.mark.parametrize("scheme", [Scheme.BNB_INT8, Scheme.BNB_NF4])
def test_a_spec_from_elsewhere_is_shown_with_what_hinders_it(scheme: Scheme) -> None:
    chosen = default_quantization(scheme, Ability("cuda"))
    page = draw(ModelSpec("m", device="cpu", quantization=chosen))
    assert STAGE["spec"].quantization == chosen
    assert "bitsandbytes" in page.caption[0].value
    assert f"{scheme} needs an NVIDIA GPU, and this is a CPU" in page.warning[0].value
