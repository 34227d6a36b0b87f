"""How a loaded model is shown images: its processor, its vision tower and its positions, as transformers has them.

Any architecture fits whose tower is asked through `get_image_features` and whose features come in the place of the
embeddings of one token; Qwen3-VL's further features, added after its first text layers, and Gemma's attention that
looks ahead within an image are known too. What a model does beyond that is found by comparing with the model itself
(image_parity.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PROCESSOR_MAPPING, Idefics3Config, SmolVLMConfig

from engine.errors import InvalidRequestError
from engine.inference.image_prompt import ImagePrompt, Pixels, Positions

_VIDEOS = "video_processor"
_TEXT_OUTPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


@dataclass(frozen=True, slots=True)
class Vision:
    """What shows images to one model.

    Attributes:
        image_token_id: the token that stands for a part of an image in a prompt.
        get_features: the model's own, from pixels to features.
        get_positions: the model's own, for M-RoPE; None where a token's position is its index.
        dtype: of the pixels it is shown.
        looks_ahead: whether the tokens of one image see each other both ways.
    """

    processor: Any
    image_token_id: int
    get_features: Callable[..., Any]
    get_positions: Callable[..., Any] | None
    dtype: torch.dtype
    looks_ahead: bool = False

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.processor.tokenizer

    @property
    def image_marks(self) -> frozenset[str]:
        """What stands in a text for an image, or for a part of one: Gemma has a mark for each."""
        marks = (
            getattr(self.processor, "image_token", None),
            self.tokenizer.convert_ids_to_tokens(self.image_token_id),
        )
        return frozenset(mark for mark in marks if mark)

    def count_tokens(self, pictures: Sequence[Image.Image]) -> int:
        """The tokens that they will take, before they are made into numbers; one each where the processor cannot
        tell."""
        try:
            sizes = [(picture.height, picture.width) for picture in pictures]
            return int(sum(self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"]))
        except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError):
            return len(pictures)

    def read(self, text: str, pictures: Sequence[Image.Image], param: str = "messages") -> ImagePrompt:
        """A rendered conversation, one mark for each picture in it, as the model reads it. Special tokens are put
        around it unless it begins with one, as `ProcessorMixin.apply_chat_template` does.

        Raises:
            InvalidRequestError: the processor refuses the pictures, or text and pictures do not belong together.
        """
        try:
            return self._prompt(self.process(text, pictures), len(pictures))
        except (IndexError, RuntimeError, StopIteration, TypeError, ValueError) as error:
            raise InvalidRequestError(f"the model's processor refuses the images: {error}", param) from error

    def process(self, text: str, pictures: Sequence[Image.Image]) -> Mapping[str, torch.Tensor]:
        """What the model's own forward pass takes, as its processor makes it."""
        begin = self.tokenizer.bos_token
        is_begun = begin is not None and text.startswith(begin)
        read: Mapping[str, torch.Tensor] = self.processor(
            text=[text], images=[list(pictures)], add_special_tokens=not is_begun, return_tensors="pt"
        )
        return read

    def _prompt(self, read: Mapping[str, torch.Tensor], num_images: int) -> ImagePrompt:
        ids = read["input_ids"][0]
        places = (ids == self.image_token_id).nonzero()[:, 0].tolist()
        shown = _chosen(self.get_features, {key: value for key, value in read.items() if key not in _TEXT_OUTPUTS})
        cast = {key: value.to(self.dtype) if value.is_floating_point() else value for key, value in shown.items()}
        passes = split_by_image(cast, num_images)
        return ImagePrompt(ids.tolist(), places, passes, self._positions(read), looks_ahead=self.looks_ahead)

    def _positions(self, read: Mapping[str, torch.Tensor]) -> Positions | None:
        if self.get_positions is None:
            return None
        positions, delta = self.get_positions(**_chosen(self.get_positions, dict(read)))
        return Positions(positions[:, 0], int(delta))

    def save(self, folder: Path) -> None:
        """Put the processor's files into a model's folder."""
        self.processor.save_pretrained(folder)

    def encode(self, pixels: Pixels, device: torch.device) -> torch.Tensor:
        """One pass of the vision tower: features (tokens, layers, width), as `ImagePrompt` has them."""
        output = self.get_features(**{key: value.to(device) for key, value in pixels.items()})
        layers = [getattr(output, "pooler_output", output), *(getattr(output, "deepstack_features", None) or ())]
        return torch.stack([_joined(features) for features in layers], dim=1).to(self.dtype)


def _joined(features: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """Of all images or tiles, (tokens, width)."""
    parts = [features] if isinstance(features, torch.Tensor) else features
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])


def split_by_image(pixels: Pixels, num_images: int) -> list[Pixels]:
    """One pass an image or a tile of one, where the processor's numbers show which are whose; else one for all."""
    grid = pixels.get("image_grid_thw")
    if grid is not None and set(pixels) == {"image_grid_thw", "pixel_values"}:
        patches = pixels["pixel_values"].split(grid.prod(-1).tolist())
        return [{"pixel_values": part, "image_grid_thw": grid[at : at + 1]} for at, part in enumerate(patches)]
    if set(pixels) == {"pixel_values", "pixel_attention_mask"} and len(pixels["pixel_values"]) == 1:
        num_tiles = pixels["pixel_values"].shape[1]  # of all images, as Idefics3 has them
        return [{key: value[:, at : at + 1] for key, value in pixels.items()} for at in range(num_tiles)]
    is_a_row_each = set(pixels) == {"pixel_values"} and pixels["pixel_values"].ndim == 4
    num_rows = len(pixels["pixel_values"]) if is_a_row_each else num_images
    if all(len(value) == num_rows for value in pixels.values()):
        return [{key: value[at : at + 1] for key, value in pixels.items()} for at in range(num_rows)]
    return [pixels]


def _chosen(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that `function` names, but what is None."""
    names = inspect.signature(function).parameters
    return {key: value for key, value in values.items() if key in names and value is not None}


def read_vision(folder: Path, model: Any, tokenizer: Any, dtype: torch.dtype, *, may_run_code: bool = False) -> Vision:
    """What shows images to `model`, from the files of its folder.

    Raises:
        OSError, ValueError, ImportError, AttributeError, TypeError: the processor is missing, needs what is not here,
            or the model is asked for features in another way.
    """
    processor = _processor_class(model.config).from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=may_run_code
    )
    processor.tokenizer = tokenizer
    if not tokenizer.chat_template:
        tokenizer.chat_template = processor.chat_template
    base, token_id = model.base_model, int(model.config.image_token_id)
    _hand_on_added_features(model)
    return Vision(
        processor,
        token_id,
        base.get_image_features,
        getattr(base, "get_rope_index", None),
        dtype,
        _looks_ahead(model),
    )


def _looks_ahead(model: Any) -> bool:
    """Whether the model's own attention within an image does: Gemma 3 is told of each token whether it is of one, and
    Gemma 4's config says so."""
    declared = getattr(model.config.get_text_config(), "use_bidirectional_attention", None)
    return "token_type_ids" in inspect.signature(model.forward).parameters or declared == "vision"


def _hand_on_added_features(model: Any) -> None:
    """Have text layers that take further features of images (Qwen3-VL's) take those of the packed batch: the model
    hands on what it has encoded in the same call alone."""

    def hand_on(_part: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        batch = given.get("packed_batch")
        if batch is None or batch.added is None:
            return None
        hidden = given["inputs_embeds"]
        is_image = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        is_image[0, batch.image_rows] = True
        return args, {**given, "visual_pos_masks": is_image, "deepstack_visual_embeds": batch.added.unbind(dim=1)}

    for part in model.modules():
        if "deepstack_visual_embeds" in inspect.signature(part.forward).parameters:
            part.register_forward_pre_hook(hand_on, with_kwargs=True)


def _processor_class(config: Any) -> Any:
    """The model's processor without its part for videos, which need torchvision and are not served."""
    if type(config) not in PROCESSOR_MAPPING:
        raise ValueError(f"transformers has no processor for models of type {config.model_type}")
    # SmolVLM's reads pictures as Idefics3's does, and for the words of a video it asks for num2words.
    whole: Any = PROCESSOR_MAPPING[Idefics3Config if type(config) is SmolVLMConfig else type(config)]
    if missing := getattr(whole, "_backends", None):
        raise ImportError(f"its processor needs {' and '.join(missing)}, which is not installed")
    parts = whole.get_attributes()

    class ImagesAndText(whole):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in super().get_attributes() if part != _VIDEOS]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
            values = {key: value for key, value in processor_dict.items() if key != _VIDEOS}
            place = parts.index(_VIDEOS) if _VIDEOS in parts else len(args)
            missing = [None] if _VIDEOS in parts else []
            return super().from_args_and_dict([*args[:place], *missing, *args[place:]], values, **kwargs)

    ImagesAndText.__name__ = whole.__name__
    return ImagesAndText
