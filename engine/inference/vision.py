"""How a loaded model is shown images: its processor, its vision tower and its positions, as transformers has them.

Any architecture fits whose tower is asked through `get_image_features` and whose features come in the place of the
embeddings of one token. What a model does beyond that (features added in later layers, attention that looks ahead
within an image) is found by comparing with the model itself (image_parity.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PROCESSOR_MAPPING

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
    """

    processor: Any
    image_token_id: int
    get_features: Callable[..., Any]
    get_positions: Callable[..., Any] | None
    dtype: torch.dtype

    @property
    def tokenizer(self) -> Any:
        """The model's."""
        return self.processor.tokenizer

    @property
    def image_mark(self) -> str | None:
        """How the token of an image is written in a text; None where the processor does not say."""
        mark: str | None = getattr(self.processor, "image_token", None)
        return mark

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
        return ImagePrompt(ids.tolist(), places, split_by_image(cast, num_images), self._positions(read))

    def _positions(self, read: Mapping[str, torch.Tensor]) -> Positions | None:
        if self.get_positions is None:
            return None
        positions, delta = self.get_positions(**_chosen(self.get_positions, dict(read)))
        return Positions(positions[:, 0], int(delta))

    def save(self, folder: Path) -> None:
        """Put the processor's files into a model's folder."""
        self.processor.save_pretrained(folder)

    def encode(self, pixels: Pixels, device: torch.device) -> torch.Tensor:
        """One pass of the vision tower: features (tokens, width)."""
        output = self.get_features(**{key: value.to(device) for key, value in pixels.items()})
        features = getattr(output, "pooler_output", output)
        parts = [features] if isinstance(features, torch.Tensor) else list(features)
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts]).to(self.dtype)


def split_by_image(pixels: Pixels, num_images: int) -> list[Pixels]:
    """One pass an image, where the processor's numbers show which are whose; else one for all."""
    grid = pixels.get("image_grid_thw")
    if grid is not None and set(pixels) == {"image_grid_thw", "pixel_values"}:
        patches = pixels["pixel_values"].split(grid.prod(-1).tolist())
        return [{"pixel_values": part, "image_grid_thw": grid[at : at + 1]} for at, part in enumerate(patches)]
    if all(len(value) == num_images for value in pixels.values()):
        return [{key: value[at : at + 1] for key, value in pixels.items()} for at in range(num_images)]
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
    return Vision(processor, token_id, base.get_image_features, getattr(base, "get_rope_index", None), dtype)


def _processor_class(config: Any) -> Any:
    """The model's processor without its part for videos, which need torchvision and are not served."""
    if type(config) not in PROCESSOR_MAPPING:
        raise ValueError(f"transformers has no processor for models of type {config.model_type}")
    whole: Any = PROCESSOR_MAPPING[type(config)]
    if _VIDEOS not in whole.get_attributes():
        return whole

    class ImagesAndText(whole):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [part for part in super().get_attributes() if part != _VIDEOS]

        @classmethod
        def from_args_and_dict(cls, args: list[Any], processor_dict: dict[str, Any], **kwargs: Any) -> Any:
            place = whole.get_attributes().index(_VIDEOS)
            values = {key: value for key, value in processor_dict.items() if key != _VIDEOS}
            return super().from_args_and_dict([*args[:place], None, *args[place:]], values, **kwargs)

    ImagesAndText.__name__ = whole.__name__
    return ImagesAndText
