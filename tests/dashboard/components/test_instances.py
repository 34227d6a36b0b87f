from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard.components.in_flight import describe_request
from dashboard.components.instance_details import model_facts, prefixes_text, reserved_ratio, reserved_text, use_text
from dashboard.components.instances import describe, failure_text, stage_text, state_badge, version_badge
from engine import InstanceInfo, InstanceState, ModelSpec, RequestInfo
from engine.inference.stats import PrefixStats, RunnerStats
from engine.instance import Role
from engine.models.spec import Granularity, Quantization, Scheme
from tests.fakes import FAKE_INFO

INFO = InstanceInfo(
    name="phone",
    spec=ModelSpec("/models/phone", device="cpu"),
    state=InstanceState.LOADING,
    reason=None,
    stage="loading weights",
    progress=0.5,
    since_s=100.0,
    num_restarts=0,
    retry_at_s=None,
    model=None,
    stats=None,
)
STATS = RunnerStats(3, 1, 16, 256, 2_500, 10_000, 12.5, 40, 90, None)


@pytest.mark.parametrize("state", list(InstanceState))
def test_every_state_has_a_look(state: InstanceState) -> None:
    assert state.value in state_badge(state)


def test_description_before_and_after_loading() -> None:
    assert describe(INFO) == "/models/phone · device cpu · dtype auto"
    loaded = replace(INFO, model=replace(FAKE_INFO, num_parameters=134_515_008))
    assert describe(loaded) == "float32 on cpu · 134.5 M parameters"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "loading weights 50% · 12 s"),
        ({"progress": None}, "loading weights · 12 s"),
        ({"state": InstanceState.PENDING, "progress": None}, "waiting for its turn · 12 s"),
        ({"state": InstanceState.WARMING, "progress": None}, "warming up with a first generation · 12 s"),
        ({"stage": None, "progress": None}, "starting · 12 s"),
    ],
)
def test_stage(changes: dict[str, object], text: str) -> None:
    assert stage_text(replace(INFO, **changes), 112.2) == text


@pytest.mark.parametrize(
    ("retry_at_s", "text"),
    [(None, "no memory"), (104.4, "no memory; tries again in 4 s"), (99.0, "no memory; tries again now")],
)
def test_failure(retry_at_s: float | None, text: str) -> None:
    failed = replace(INFO, state=InstanceState.FAILED, reason="no memory", retry_at_s=retry_at_s)
    assert failure_text(failed, 100.0) == text


def test_reserved_cache() -> None:
    assert reserved_ratio(STATS) == 0.25
    assert reserved_text(STATS, 46_080) == "KV cache reserved: 2,500 of 10,000 tokens (115.2 MB of 460.8 MB)"
    assert reserved_text(STATS, None) == "KV cache reserved: 2,500 of 10,000 tokens"
    assert reserved_ratio(replace(STATS, cache_tokens_total=0)) == 0.0
    assert reserved_ratio(replace(STATS, cache_tokens_reserved=20_000)) == 1.0


def test_kept_beginnings_of_prompts() -> None:
    assert prefixes_text(None, 1_000) == "Beginnings of prompts are not kept (prefix_cache_gib is 0)"
    fresh = PrefixStats(0, 4_000, 256, 0, 0, None)
    assert prefixes_text(fresh, 1_000) == "Beginnings of prompts kept: 0 tokens (0 B) of at most 4.0 MB"
    used = PrefixStats(512, 4_000, 256, 1_200, 300, 0.75)
    kept = "Beginnings of prompts kept: 512 tokens (512.0 kB) of at most 4.0 MB"
    assert prefixes_text(used, 1_000) == f"{kept} · 25 % of prompts' tokens found, 750 ms of computing saved"


def test_facts_carry_units() -> None:
    facts = model_facts(FAKE_INFO)
    assert facts["Weights"] == "4.0 kB as float32"
    assert facts["Context length"] == "512 tokens"
    assert facts["KV cache"] == "64 B per token"
    assert facts["Load time"] == "100 ms"


def test_request_line_escapes_what_others_named() -> None:
    line = describe_request(RequestInfo("req-1", "my_*model*", "api", False, 2.5, 1_200, 7))
    assert line.startswith(":gray-badge[waiting] **2.50 s** · 1,200 in · 7 out")
    assert r"my\_\*model\*" in line


def test_versions_are_told_apart() -> None:
    assert version_badge(INFO) is None
    assert version_badge(replace(INFO, version=3)) == ":violet-badge[version 3]"
    assert version_badge(replace(INFO, role=Role.LEAVING)) == ":violet-badge[version 1 · leaving]"


def test_quantization_is_named_before_and_after_loading() -> None:
    quantization = Quantization(Scheme.INT4_WEIGHT, Granularity.GROUP, 32, False)
    asked = replace(INFO, spec=replace(INFO.spec, quantization=quantization))
    assert describe(asked).endswith("dtype auto · int4-weight, group of 32, affine")
    model = replace(FAKE_INFO, quantization=quantization, read_bytes_per_s=2e9)
    assert describe(replace(INFO, model=model)).startswith("int4-weight, group of 32, affine on cpu")
    facts = model_facts(model)
    assert (facts["Quantization"], facts["Load time"]) == ("int4-weight, group of 32, affine", "100 ms at 2.0 GB/s")
    assert model_facts(FAKE_INFO)["Quantization"] == "none"


def test_last_use() -> None:
    assert use_text(INFO, 200.0) == "not used yet"
    used = replace(INFO, last_used_s=100.0, is_pinned=True)
    assert use_text(used, 225.0) == "last used 2 min 5 s ago · stays loaded"
