"""Pictures in requests, against transformers' own `generate`: tiny models of several architectures, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.backend import prepare_sequence
from engine.config import Settings
from engine.errors import ContextLengthError, InvalidRequestError
from engine.inference import attention
from engine.inference.image_parity import serve_images
from engine.inference.images import ImagePart
from engine.inference.request import Content, Delta, Finished, FinishReason, Message, Request, SamplingParams, Timing
from engine.inference.runner import Runner
from engine.inference.sequence import Sequence
from engine.inference.vision import Vision
from engine.models.loader import LoadedModel, load_model
from engine.models.spec import Modality, ModelSpec
from engine.scheduling.admission import Limits
from engine.weights.store import plain_weights
from tests.fakes import FakeClock
from tests.vision_models import (
    picture,
    picture_bytes,
    save_tiny_gemma,
    save_tiny_glm4v,
    save_tiny_idefics,
    save_tiny_llava,
    save_tiny_qwen,
)

_LIMITS = Limits(max_running=4, max_waiting=8, chunk_tokens=32, cache_tokens=8_000)
_NUM_TOKENS = 24
_names = count()

Turns = list[tuple[str, Content]]


_ONE_PASS_A_PICTURE: dict[str, Callable[[Path], Path]] = {"glm4v": save_tiny_glm4v, "llava": save_tiny_llava}
_MODELS = {
    **_ONE_PASS_A_PICTURE,
    "qwen3_vl": partial(save_tiny_qwen, version="3"),
    "gemma3": save_tiny_gemma,
    "idefics3": save_tiny_idefics,
    "smolvlm": partial(save_tiny_idefics, kind="SmolVLM"),
}


@pytest.fixture(scope="module", params=_MODELS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return _load(_MODELS[request.param], tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module", params=_ONE_PASS_A_PICTURE)
def by_picture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return _load(_ONE_PASS_A_PICTURE[request.param], tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return _load(save_tiny_gemma, tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return _load(save_tiny_glm4v, tmp_path_factory.mktemp("vision"))


def _load(save: Callable[[Path], Path], folder: Path) -> LoadedModel:
    spec = ModelSpec(str(save(folder / "m")), name="m", device="cpu", dtype="float32")
    loaded = serve_images(load_model(spec, plain_weights(folder / "weights"), lambda _stage, _fraction: None))
    assert loaded.info.served == (Modality.TEXT, Modality.IMAGES)
    return loaded


class Bench:
    """A runner that the test steps by hand."""

    def __init__(self, loaded: LoadedModel, limits: Limits = _LIMITS) -> None:
        self.loaded = loaded
        self.clock = FakeClock()
        self.ended: list[Finished] = []
        self.runner = Runner(loaded, limits, self.clock, lambda _sequence, finished: self.ended.append(finished))

    def submit(self, turns: Turns, max_tokens: int = _NUM_TOKENS) -> Sequence:
        messages = tuple(Message(role, content) for role, content in turns)
        request = Request("m", messages, SamplingParams(temperature=0.0, max_tokens=max_tokens), 60.0)
        request = replace(request, request_id=f"r{next(_names)}")
        request.check()
        timing = Timing(self.clock.wall(), self.clock.monotonic())
        sequence = prepare_sequence(self.loaded, self.runner.limits, request, timing, Settings())
        self.runner.submit(sequence)
        return sequence

    def run(self) -> None:
        for _ in range(2_000):
            self.clock.advance(0.01)
            if not self.runner.step():
                return
        raise AssertionError("the runner never ran dry")

    def answer(self, turns: Turns, max_tokens: int = _NUM_TOKENS) -> list[int]:
        sequence = self.submit(turns, max_tokens)
        self.run()
        return tokens_of(sequence)


def tokens_of(sequence: Sequence) -> list[int]:
    return [t.token_id for event in sequence.stream.poll() if isinstance(event, Delta) for t in event.tokens]


def image(seed: int = 0, **size: int) -> ImagePart:
    return ImagePart(picture_bytes(seed, **size))


def generate(loaded: LoadedModel, turns: Turns, seeds: list[int], **size: int) -> list[int]:
    """The peer: the model's processor and its own greedy search."""
    assert loaded.vision is not None
    processor = loaded.vision.processor
    conversation = [
        {
            "role": role,
            "content": [{"type": "text", "text": p} if isinstance(p, str) else {"type": "image"} for p in parts],
        }
        for role, content in turns
        for parts in [(content,) if isinstance(content, str) else content]
    ]
    text = processor.apply_chat_template(conversation, add_generation_prompt=True)
    given = processor(text=[text], images=[picture(seed, **size) for seed in seeds], return_tensors="pt")
    with attention.used(loaded.model, attention.REFERENCE), torch.inference_mode():
        output = loaded.model.generate(**given, max_new_tokens=_NUM_TOKENS, do_sample=False)
    tokens: list[int] = output[0, given["input_ids"].shape[1] :].tolist()
    return tokens


_ONE: Turns = [("user", (image(), "What is this?"))]


def test_greedy_equals_generate(loaded: LoadedModel) -> None:
    expected = generate(loaded, _ONE, [0])
    assert Bench(loaded).answer(_ONE) == expected
    assert expected != generate(loaded, _ONE, [1]), "the picture makes no difference, so the test shows nothing"


@pytest.mark.parametrize("chunk_tokens", [16, 31, 256])
def test_wherever_chunks_are_cut(loaded: LoadedModel, chunk_tokens: int) -> None:
    """Chunks of 16 cut the picture several times, 256 holds the whole prompt."""
    limits = replace(_LIMITS, chunk_tokens=chunk_tokens)
    turns: Turns = [("user", ("Look. " * 12, image(), "And this text comes after it. " * 3))]
    assert Bench(loaded, limits).answer(turns) == generate(loaded, turns, [0])


@pytest.mark.parametrize("chunk_tokens", [1, 10, 24])
def test_a_picture_that_looks_ahead_is_run_whole(gemma: LoadedModel, chunk_tokens: int) -> None:
    """Also where it is longer than a chunk; and no chunk is longer than the longer of both."""
    limits = replace(_LIMITS, chunk_tokens=chunk_tokens)
    turns: Turns = [("user", ("See: ", image(1), image(2), "and say."))]
    bench = Bench(gemma, limits)
    sequence = bench.submit(turns)
    assert sequence.images is not None
    wholes, cuts = sequence.images.wholes, []
    assert [stop - start for start, stop in wholes] == [16, 16]
    while not sequence.num_output_tokens:
        bench.runner.step()
        cuts.append(sequence.num_computed)
    assert not any(start < cut < stop for start, stop in wholes for cut in cuts)
    assert max(stop - start for start, stop in pairwise([0, *cuts])) <= max(chunk_tokens, 16)
    bench.run()
    assert tokens_of(sequence) == generate(gemma, turns, [1, 2])


def test_two_pictures_in_one_message(loaded: LoadedModel) -> None:
    turns: Turns = [("user", (image(1), "before, and after: ", image(2), "what changed?"))]
    assert Bench(loaded).answer(turns) == generate(loaded, turns, [1, 2])
    assert generate(loaded, turns, [1, 2]) != generate(loaded, turns, [2, 1])


def test_a_conversation_whose_newest_turn_has_the_picture(loaded: LoadedModel) -> None:
    turns: Turns = [
        ("user", "Open the settings."),
        ("assistant", "<think>I need to see it.</think>"),
        ("user", (image(3), "Here.")),
    ]
    assert Bench(loaded).answer(turns) == generate(loaded, turns, [3])


def test_pictures_of_other_shapes(glm: LoadedModel) -> None:
    """As many tokens as the size asks for."""
    wide, tall = ([("user", (image(0, width=w, height=h), "?"))] for w, h in ((96, 24), (24, 96)))
    bench = Bench(glm)
    assert bench.answer(wide) == generate(glm, wide, [0], width=96, height=24)
    assert bench.answer(tall) == generate(glm, tall, [0], width=24, height=96)


def test_company_leaves_answers_as_they_are(loaded: LoadedModel) -> None:
    asked: list[Turns] = [_ONE, [("user", "Only text, of some length. " * 4)], [("user", (image(5), "And this?"))]]
    alone = [Bench(loaded).answer(turns) for turns in asked]
    bench = Bench(loaded)
    together = [bench.submit(turns) for turns in asked]
    bench.run()
    assert [tokens_of(sequence) for sequence in together] == alone


def test_text_goes_on_while_pictures_are_looked_at(by_picture: LoadedModel) -> None:
    """One pass of the tower a step, and after it the answer under way gets its time."""
    bench = Bench(by_picture)
    text = bench.submit([("user", "Hi")], 40)
    bench.runner.step()
    waiting = bench.submit([("user", (image(1), image(2), image(3), "?"))])
    for _ in range(4):
        before = text.num_output_tokens
        bench.runner.step()
        assert text.num_output_tokens == before + 1
    assert waiting.is_seen
    bench.run()
    assert len(tokens_of(text)) == 40 or text.token_ids[-1] in by_picture.end_ids


def test_the_tower_rests_as_long_as_it_worked(by_picture: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(by_picture)
    bench.submit([("user", "Hi")], 40)
    bench.runner.step()
    waiting = bench.submit([("user", (image(1), image(2), "?"))])
    assert waiting.images is not None
    put = waiting.images.put
    monkeypatch.setattr(waiting.images, "put", lambda features: (bench.clock.advance(1.0), put(features)))
    bench.runner.step()
    bench.clock.advance(0.5)
    bench.runner.step()
    assert not waiting.is_seen
    bench.clock.advance(0.5)
    bench.runner.step()
    assert waiting.is_seen


def test_requests_with_the_same_picture_share_its_pass(
    by_picture: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Turns] = [_ONE, _ONE, [("user", (image(5), "And this?"))], [("user", (image(), "Other words."))]]
    alone = [Bench(by_picture).answer(turns) for turns in asked]
    passes: list[object] = []
    encode = Vision.encode

    def count_pass(vision: Vision, *arguments: Any) -> torch.Tensor:
        passes.append(arguments)
        return encode(vision, *arguments)

    monkeypatch.setattr(Vision, "encode", count_pass)
    bench = Bench(by_picture)
    together = [bench.submit(turns) for turns in asked]
    bench.run()
    assert len(passes) == 2
    assert [tokens_of(sequence) for sequence in together] == alone


def test_cancelled_between_two_pictures(by_picture: LoadedModel) -> None:
    bench = Bench(by_picture)
    sequence = bench.submit([("user", (image(1), image(2), "?"))])
    bench.runner.step()
    assert not sequence.is_seen
    assert sequence.images is not None
    sequence.stream.close()
    bench.run()
    assert [finished.reason for finished in bench.ended] == [FinishReason.CANCELLED]
    assert _held(sequence) == (0, 0)
    assert sequence.num_computed == 0


def test_features_go_once_the_prompt_is_computed(by_picture: LoadedModel) -> None:
    bench = Bench(by_picture)
    sequence = bench.submit(_ONE)
    assert _held(sequence) == (1, 0)
    bench.runner.step()
    if sequence.num_computed < sequence.num_prompt_tokens:
        assert _held(sequence) == (0, 1)
    while not sequence.num_output_tokens:
        bench.runner.step()
    assert _held(sequence) == (0, 0)


def _held(sequence: Sequence) -> tuple[int, int]:
    """Passes still to come, and features that are kept."""
    images: Any = sequence.images
    return len(images._passes), len(images._features)


def test_a_tower_that_fails_ends_one_request(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(loaded)
    broken, whole = bench.submit(_ONE), bench.submit([("user", "Hi")])
    assert broken.images is not None

    def fail(_features: torch.Tensor) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(broken.images, "put", fail)
    bench.run()
    assert {finished.reason for finished in bench.ended} >= {FinishReason.ERROR}
    assert broken.stream.finished is not None
    assert broken.stream.finished.error is not None
    assert "(out of memory): send smaller ones" in broken.stream.finished.error
    assert whole.num_output_tokens > 0


def test_image_tokens_count(glm: LoadedModel) -> None:
    bench = Bench(glm)
    sequence = bench.submit(_ONE)
    text = Bench(glm).submit([("user", "What is this?")])
    assert sequence.num_prompt_tokens == text.num_prompt_tokens + 49 + 2  # 56 x 56 pixels, and the marks around them
    assert bench.runner.stats().num_waiting_tokens == sequence.num_prompt_tokens


def test_too_many_image_tokens_are_refused_unread(glm: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vision, "process", lambda *_: pytest.fail("they were made into numbers"))
    limits = replace(_LIMITS, cache_tokens=90)
    with pytest.raises(ContextLengthError, match=r"the prompt has at least 108 tokens and the context of m holds 90"):
        Bench(glm, limits).submit([("user", (image(1), image(2)))])


@pytest.mark.parametrize("text", ["this <|image|> is mine", "<|image|>"])
def test_the_mark_of_an_image_in_a_text(by_picture: LoadedModel, text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"a text holds <\|image\|>, which stands for an image here"):
        Bench(by_picture).submit([("user", (image(), text))])


@pytest.mark.parametrize("mark", ["<start_of_image>", "<image_soft_token>"])
def test_the_mark_of_a_part_of_an_image_in_a_text(gemma: LoadedModel, mark: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"a text holds {mark}, which stands for an image here"):
        Bench(gemma).submit([("user", (image(), f"this {mark} is mine"))])


def test_a_model_that_takes_text_alone(tiny: LoadedModel) -> None:
    part = replace(image(), place="messages.0.content.0.image_url")
    with pytest.raises(InvalidRequestError, match="tiny serves text and no images: leave the picture out") as refused:
        Bench(tiny).submit([("user", (part, "?"))])
    assert refused.value.param == "messages.0.content.0.image_url"
