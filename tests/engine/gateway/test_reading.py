from __future__ import annotations

from dataclasses import replace

from engine.gateway.reading import features_of, local_candidate, remote_candidate, to_ask, turns_of
from engine.gateway.standings import Recent
from engine.inference.images import ImagePart
from engine.inference.request import Message, Request, SamplingParams
from engine.inference.stats import RunnerStats
from engine.inference.tools import JsonSchema, Tool, ToolUse
from engine.instance import InstanceInfo, InstanceState
from engine.models.spec import Modality, ModelSpec
from engine.remote import RemoteInfo, RemoteSpec
from engine.scheduling.router import Breaker, Feature, Precision
from tests.fakes import FAKE_INFO
from tests.vision_models import picture_bytes

STATS = RunnerStats(3, 2, 16, 256, 2_500, 10_000, 0.0, 0, 0, None)
LOCAL = InstanceInfo("m", ModelSpec(), InstanceState.READY, None, None, None, 0.0, 0, None, FAKE_INFO, STATS)
REMOTE = RemoteInfo(RemoteSpec("far", "http://x/v1", "there", bits_per_weight=4.5), InstanceState.READY, None, 0.0, 5)
BREAKER = Breaker(1)


def test_a_local_instance_with_its_load() -> None:
    found = local_candidate(LOCAL, Recent(1, 0, 0.2, 1.0), BREAKER)
    assert (found.num_running, found.num_waiting, found.max_running, found.max_waiting) == (3, 2, 16, 256)
    assert (found.kv_used, found.ttft_p95_s, found.context_length) == (0.25, 0.2, 512)
    assert found.bits_per_weight == 32.0
    assert (found.why_not_ready, found.is_remote, found.breaker) == (None, False, BREAKER)
    assert found.features == {Feature.TEXT, Feature.STRUCTURED_OUTPUT, Feature.TOOLS}


def test_a_model_that_takes_images_says_so() -> None:
    info = replace(LOCAL, model=replace(FAKE_INFO, served=(Modality.TEXT, Modality.IMAGES)))
    assert Feature.IMAGES in local_candidate(info, Recent(), BREAKER).features


def test_one_that_is_not_ready_says_why() -> None:
    loading = replace(LOCAL, state=InstanceState.LOADING, model=None, stats=None)
    found = local_candidate(loading, Recent(), BREAKER)
    assert (found.why_not_ready, found.bits_per_weight, found.kv_used) == ("it is loading", None, None)
    failed = replace(loading, state=InstanceState.FAILED, reason="no memory")
    assert local_candidate(failed, Recent(), BREAKER).why_not_ready == "it is failed: no memory"


def test_a_remote_instance_with_what_is_known_of_it() -> None:
    found = remote_candidate(replace(REMOTE, context_length=4096), Recent(), BREAKER)
    assert (found.name, found.is_remote, found.num_running, found.max_running) == ("far", True, 5, 64)
    assert (found.context_length, found.bits_per_weight, found.features) == (4096, 4.5, {Feature.TEXT})


def test_a_request_needs_what_it_uses() -> None:
    hello = (Message("user", "Hello" * 100),)
    plain = to_ask(Request("m", hello, SamplingParams(max_tokens=9)), Precision.FAST, "k")
    assert (plain.model, plain.max_tokens, plain.precision, plain.key) == ("m", 9, Precision.FAST, "k")
    assert plain.features == {Feature.TEXT}
    assert 1 <= plain.num_prompt_tokens < 100
    demanding = Request("m", hello, constraint=JsonSchema({}), tools=ToolUse((Tool("go"),)))
    assert to_ask(demanding, None, "").features == {Feature.TEXT, Feature.STRUCTURED_OUTPUT, Feature.TOOLS}


def test_a_plain_prompt_is_one_turn_and_its_ids_are_counted() -> None:
    assert turns_of(Request("m", (), prompt="Once")) == [("", "Once")]
    assert to_ask(Request("m", (), prompt=(1, 2, 3)), None, "").num_prompt_tokens == 3


def test_pictures_are_asked_for_and_told_apart() -> None:
    def asking(seed: int) -> Request:
        return Request("m", (Message("user", (ImagePart(picture_bytes(seed)), "?")),))

    ask = to_ask(asking(1), None, "")
    assert Feature.IMAGES in ask.features
    assert ask.num_prompt_tokens == 1  # a token for the picture, and what little text there is may be part of another
    assert turns_of(asking(1)) != turns_of(asking(2))
    assert Feature.IMAGES not in features_of(Request("m", (Message("user", "?"),)))
