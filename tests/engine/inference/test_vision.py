from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import SmolVLMProcessor
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from engine.errors import InvalidRequestError
from engine.inference.image_parity import check_image_parity, serve_images
from engine.inference.image_prompt import ImagePrompt, Positions
from engine.inference.parity import check_parity
from engine.inference.prompt import render_text, takes_strings
from engine.inference.request import Message
from engine.inference.vision import Vision, split_by_image
from engine.models.loader import LoadedModel, load_model
from engine.models.saved import save_quantized
from engine.models.spec import Modality, ModelSpec, Quantization, Scheme
from engine.weights.store import plain_weights
from tests.vision_models import (
    picture,
    save_tiny_gemma,
    save_tiny_glm4v,
    save_tiny_idefics,
    save_tiny_llava,
    save_tiny_qwen,
)


def _load(folder: Path, **fields: Any) -> LoadedModel:
    spec = ModelSpec(str(folder), name="m", device="cpu", **fields)
    return load_model(spec, plain_weights(folder.parent / "weights"), lambda _stage, _fraction: None)


@pytest.fixture(params=[save_tiny_glm4v, save_tiny_llava], ids=["glm4v", "llava"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    save: Callable[[Path], Path] = request.param
    return save(tmp_path / "m")


def test_images_come_out_as_the_model_itself_has_them(folder: Path) -> None:
    loaded = _load(folder, dtype="float32")
    assert loaded.info.served == (Modality.TEXT,), "nothing is served before it was compared"
    assert 0 < check_image_parity(loaded) < 1e-5
    served = serve_images(loaded)
    assert (served.info.served, served.info.notes) == ((Modality.TEXT, Modality.IMAGES), ())
    assert serve_images(_load(folder, dtype="bfloat16")).info.served == (Modality.TEXT, Modality.IMAGES)


@pytest.mark.parametrize(
    "save",
    [
        partial(save_tiny_qwen, version="2"),
        partial(save_tiny_qwen, version="2.5"),
        partial(save_tiny_qwen, version="3"),
        partial(save_tiny_qwen, version="3_moe"),
        save_tiny_gemma,
        save_tiny_idefics,
        partial(save_tiny_idefics, kind="SmolVLM"),
    ],
    ids=["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "gemma3", "idefics3", "smolvlm"],
)
def test_other_architectures_are_served(save: Callable[[Path], Path], tmp_path: Path) -> None:
    loaded = _load(save(tmp_path / "m"), dtype="float32")
    assert serve_images(loaded).info.served == (Modality.TEXT, Modality.IMAGES), serve_images(loaded).why_no_images
    assert check_parity(loaded) < 1e-5
    assert check_image_parity(loaded) < 1e-5


def test_features_that_later_layers_miss_are_found(tmp_path: Path) -> None:
    loaded = _load(save_tiny_qwen(tmp_path / "m", "3"), dtype="float32")
    assert loaded.vision is not None
    features = loaded.vision.get_features

    def embeddings_alone(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor) -> Any:
        return features(pixel_values=pixel_values, image_grid_thw=image_grid_thw).pooler_output

    refused = serve_images(replace(loaded, vision=replace(loaded.vision, get_features=embeddings_alone)))
    assert "its logits differ from the model's own by" in str(refused.why_no_images)


def test_an_image_that_is_seen_one_way_is_found(tmp_path: Path) -> None:
    loaded = _load(save_tiny_gemma(tmp_path / "m"), dtype="float32")
    assert loaded.vision is not None
    refused = serve_images(replace(loaded, vision=replace(loaded.vision, looks_ahead=False)))
    assert "its logits differ from the model's own by" in str(refused.why_no_images)


@pytest.mark.parametrize("has_video_part", [False, True])
def test_smolvlm_reads_as_its_own_processor_does(
    has_video_part: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which asks for num2words, to write out how many frames a video has."""
    folder = save_tiny_idefics(tmp_path / "m", "SmolVLM")
    if has_video_part:
        config = json.loads((folder / "processor_config.json").read_text())
        config |= {"processor_class": "SmolVLMProcessor", "video_processor": {"fps": 1}}
        (folder / "processor_config.json").write_text(json.dumps(config))
    loaded = _load(folder)
    assert loaded.vision is not None, loaded.why_no_images
    monkeypatch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
    monkeypatch.setattr(SmolVLMProcessor, "check_argument_for_proper_class", lambda *_: None)  # of videos, not here
    images = SmolVLMImageProcessorPil(size={"longest_edge": 48}, max_image_size={"longest_edge": 16})
    own = SmolVLMProcessor(images, loaded.tokenizer, None, image_seq_len=4)
    text, pictures = "a <image> and <image>", [picture(1, 30, 60), picture(2, 16, 16)]
    expected = own(text=[text], images=[pictures], return_tensors="pt")
    read = loaded.vision.process(text, pictures)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) for key in expected)


def test_a_processor_that_needs_more_than_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which transformers puts a class in the place of."""
    monkeypatch.setattr("transformers.LlavaProcessor._backends", ["torchvision"], raising=False)
    refused = serve_images(_load(save_tiny_llava(tmp_path / "m")))
    assert refused.why_no_images == "its processor needs torchvision, which is not installed"


def test_a_pass_a_tile(tmp_path: Path) -> None:
    vision = _load(save_tiny_idefics(tmp_path / "m")).vision
    assert vision is not None
    prompt = vision.read("<image>, <image>", [picture(1, 48, 32), picture(2, 16, 16)])
    assert prompt.num_image_tokens == 4 * (3 * 2 + 1) + 4 * (3 * 3 + 1)
    num_passes = 0
    while (pixels := prompt.next_pixels) is not None:
        assert pixels["pixel_values"].shape[:2] == (1, 1)
        prompt.put(vision.encode(pixels, torch.device("cpu")))
        num_passes += 1
    assert num_passes == prompt.num_image_tokens // 4


def test_features_that_differ_leave_text_alone(folder: Path) -> None:
    """As with a model that does more with its features than put them into their places."""
    loaded = _load(folder, dtype="float32")
    assert loaded.vision is not None
    features = loaded.vision.get_features

    def other(pixel_values: torch.Tensor, image_grid_thw: torch.Tensor | None = None) -> Any:
        given = {} if image_grid_thw is None else {"image_grid_thw": image_grid_thw}
        output = features(pixel_values=pixel_values, **given)
        output.pooler_output = [part * 1.1 for part in output.pooler_output]
        return output

    refused = serve_images(replace(loaded, vision=replace(loaded.vision, get_features=other)))
    assert (refused.vision, refused.info.served) == (None, (Modality.TEXT,))
    assert refused.why_no_images is not None
    assert refused.why_no_images.startswith("its logits differ from the model's own by 0.")
    assert refused.info.notes == (
        f"This model takes images and they are not served: {refused.why_no_images}. Ask it with text.",
    )


def test_positions_that_differ_leave_text_alone(tmp_path: Path) -> None:
    loaded = _load(save_tiny_glm4v(tmp_path / "m"), dtype="float32")
    assert loaded.vision is not None
    assert loaded.vision.get_positions is not None
    plain = replace(loaded, vision=replace(loaded.vision, get_positions=None))
    assert "its logits differ" in str(serve_images(plain).why_no_images)


def test_a_template_without_a_place_for_images(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    refused = serve_images(_load(folder))
    assert refused.info.served == (Modality.TEXT,)
    assert refused.why_no_images


def test_a_model_quantized_and_saved_still_sees(folder: Path) -> None:
    quantized = _load(folder, quantization=Quantization(Scheme.INT8_WEIGHT))
    again = serve_images(_load(save_quantized(quantized, folder.parent / "saved")))
    assert again.info.served == (Modality.TEXT, Modality.IMAGES), again.why_no_images


@pytest.mark.parametrize("is_nested", [False, True])
def test_the_processor_needs_no_part_for_videos(tmp_path: Path, is_nested: bool) -> None:
    """Checkpoints have one, which needs torchvision: in a file of its own, or where transformers 5 puts all parts."""
    folder = save_tiny_glm4v(tmp_path / "m")
    videos = {"video_processor_type": "Glm4vVideoProcessor"}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(videos))
    if is_nested:
        images = json.loads((folder / "preprocessor_config.json").read_text())
        parts = {"image_processor": images, "video_processor": videos, "processor_class": "Glm4vProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(parts))
        (folder / "preprocessor_config.json").unlink()
    loaded = _load(folder)
    assert loaded.vision is not None, loaded.why_no_images
    assert loaded.vision.processor.chat_template
    assert loaded.vision.processor.image_processor.patch_size == 4


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Vision:
    loaded = _load(save_tiny_glm4v(tmp_path_factory.mktemp("vision") / "m"))
    assert loaded.vision is not None
    return loaded.vision


def test_tokens_are_counted_before_they_are_made(vision: Vision) -> None:
    pictures = [picture(0, 56, 56), picture(0, 200, 20)]
    prompt = vision.read("<|image|> <|image|>", pictures)
    assert vision.count_tokens(pictures) == prompt.num_image_tokens == len(prompt.token_ids) - 1
    assert replace(vision, processor=object()).count_tokens(pictures) == 2


@pytest.mark.parametrize(
    ("text", "size"), [("<|image|> and <|image|>", (56, 56)), ("none", (56, 56)), ("<|image|>", (900, 4))]
)
def test_what_the_processor_refuses(vision: Vision, text: str, size: tuple[int, int]) -> None:
    """Too few pictures, too many, and one that is all length."""
    with pytest.raises(InvalidRequestError, match="the model's processor refuses the images: ") as refused:
        vision.read(text, [picture(0, *size)], "messages.0.content.0.image_url")
    assert refused.value.param == "messages.0.content.0.image_url"


def test_pixels_are_cut_by_image() -> None:
    patches, grid = torch.arange(10).view(10, 1), torch.tensor([[1, 2, 2], [1, 2, 3]])
    first, second = split_by_image({"pixel_values": patches, "image_grid_thw": grid}, 2)
    assert first["pixel_values"].flatten().tolist() == [0, 1, 2, 3]
    assert second["pixel_values"].flatten().tolist() == [4, 5, 6, 7, 8, 9]
    assert second["image_grid_thw"].tolist() == [[1, 2, 3]]
    whole = torch.zeros(2, 3, 4, 4)
    assert [part["pixel_values"].shape[0] for part in split_by_image({"pixel_values": whole}, 2)] == [1, 1]
    tiled = torch.zeros(5, 3, 4, 4)
    assert [part["pixel_values"].shape[0] for part in split_by_image({"pixel_values": tiled}, 2)] == [1] * 5
    tiles = {"pixel_values": torch.zeros(1, 5, 3, 4, 4)}
    assert split_by_image(tiles, 2) == [tiles]


def test_templates_that_read_parts_alone(folder: Path) -> None:
    """The text of a plain content is in the prompt whichever way the template wants it."""
    tokenizer = _load(folder).tokenizer
    assert takes_strings(tokenizer) == ("glm4v" in str(json.loads((folder / "config.json").read_text())["model_type"]))
    assert "plain words" in render_text(tokenizer, (Message("user", "plain words"),))


def _prompt(delta: int = -3) -> ImagePrompt:
    positions = Positions(torch.arange(18).view(3, 6), delta)
    return ImagePrompt([0, 9, 9, 9, 9, 1], [1, 2, 3, 4], [{}, {}], positions)


def test_features_come_where_their_places_are() -> None:
    prompt = _prompt()
    prompt.put(torch.tensor([[1.0]]))
    assert prompt.next_pixels is not None
    prompt.put(torch.tensor([[2.0], [3.0], [4.0]]))
    assert prompt.next_pixels is None
    assert prompt.features(0, 1) is None
    rows, values = prompt.features(0, 3) or ([], torch.zeros(0))
    assert (rows, values.flatten().tolist()) == ([1, 2], [1.0, 2.0])
    rows, values = prompt.features(3, 6) or ([], torch.zeros(0))
    assert (rows, values.flatten().tolist()) == ([0, 1], [3.0, 4.0])
    prompt.drop()
    assert prompt.features(0, 6) is None


def test_features_that_are_too_few() -> None:
    prompt = _prompt()
    prompt.put(torch.tensor([[1.0]]))
    with pytest.raises(ValueError, match="gave 2 features for 4 image tokens"):
        prompt.put(torch.tensor([[2.0]]))


def test_positions_go_on_behind_the_prompt() -> None:
    prompt = _prompt()
    prompt.drop()
    assert prompt.positions(2, 4) is not None
    assert torch.equal(prompt.positions(2, 4), torch.tensor([[2, 3], [8, 9], [14, 15]]))  # type: ignore[arg-type]
    assert torch.equal(prompt.positions(6, 8), torch.tensor([[3, 4]] * 3))  # type: ignore[arg-type]
    assert torch.equal(prompt.positions(5, 7), torch.tensor([[5, 3], [11, 3], [17, 3]]))  # type: ignore[arg-type]
    assert ImagePrompt([1], [], [], None).positions(0, 1) is None


def test_images_that_look_ahead_stay_whole_until_the_prompt_is_computed() -> None:
    prompt = ImagePrompt(list(range(10)), [1, 2, 3, 6, 8, 9], [], None, looks_ahead=True)
    assert prompt.wholes == ((1, 4), (6, 7), (8, 10))
    assert prompt.cuts == (1, 4)
    prompt.drop()
    assert prompt.wholes == ()
    plain = ImagePrompt(list(range(10)), [1, 2, 3], [], None)
    assert (plain.wholes, plain.cuts) == ((), (2,))
