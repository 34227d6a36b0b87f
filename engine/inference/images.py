"""Pictures in messages: what is taken, and how a file becomes a picture.

Only bytes that came with the request are read. A server that fetched a URL for its caller would reach whatever it can
reach itself (other machines of its network, the cloud's metadata service), so no URL but `data:` is taken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import InvalidRequestError

Detail = Literal["auto", "low", "high"]
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_IMAGES = 16  # of one request: each is held as numbers until its turn, some 60 MB for a screenshot in float32
MAX_IMAGE_BYTES = 16 * 2**20  # a screenshot as PNG has 1 to 8 MiB
MAX_IMAGE_PIXELS = 32 * 10**6  # 96 MB once unpacked; a screenshot of 4K has 8 million
LOW_DETAIL_SIDE = 512  # what OpenAI's `low` shrinks to

_HEADER = re.compile(r"data:(?P<type>[\w/+.-]*)(?:;[\w=-]+)*?(?P<coding>;base64)?,", re.ASCII)
_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/webp"})
_LONGEST_HEADER = 200
_MOVING = ("PNG", "WEBP")  # a JPEG of several pictures is a telephone's, with its first one meant
# What Pillow raises for a damaged file, and for one made to exhaust the memory.
_DAMAGED = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """A picture in a message: the bytes of a PNG, JPEG or WebP file. Its `repr` tells them by their digest, so that
    two pictures differ and no log holds one.

    Attributes:
        detail: OpenAI's: `low` shows the model the picture within 512 x 512 pixels, `auto` and `high` as its
            processor makes it; None where the caller named none.
        place: where it stood in the caller's body, for errors.
    """

    data: bytes = field(repr=False)
    media_type: str = "image/png"
    detail: Detail | None = None
    place: str = field(default="messages", compare=False, repr=False)
    sha256: str = field(init=False)
    num_pixels: int = field(init=False)

    def __post_init__(self) -> None:
        """Raises InvalidRequestError naming `place` for what is no such file, or too large; nothing is unpacked."""
        width, height = _read_size(self)
        object.__setattr__(self, "num_pixels", width * height)
        object.__setattr__(self, "sha256", hashlib.sha256(self.data).hexdigest())

    def data_url(self) -> str:
        """As OpenAI's bodies have it."""
        return write_data_url(self.media_type, self.data)

    def shown(self) -> str:
        """What stands for it where no picture can."""
        return f"[{self.media_type}, {len(self.data):,} bytes, SHA-256 {self.sha256[:12]}]"


Content = str | tuple[str | ImagePart, ...]


def check_num_images(images: Sequence[ImagePart]) -> None:
    """Raises InvalidRequestError, naming the first one too many, where one request has more than `MAX_IMAGES`."""
    if len(images) > MAX_IMAGES:
        raise InvalidRequestError(
            f"{len(images)} pictures in one request, at most {MAX_IMAGES} are taken: send fewer",
            images[MAX_IMAGES].place,
        )


def write_data_url(media_type: str, data: bytes) -> str:
    """The `data:` URL of a file."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def read_data_url(url: str, detail: Detail | None, place: str) -> ImagePart:
    """The picture that a `data:` URL holds.

    Raises:
        InvalidRequestError: it is another URL, no base64, or no picture that is taken.
    """
    found = _HEADER.match(url[:_LONGEST_HEADER])
    if found is None:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,15}:", url)
        shown = "no data: URL" if scheme is None else f"a URL of {scheme[0]}"
        raise InvalidRequestError(
            f"{place} is {shown}, and this server fetches nothing for its callers: send the picture itself, as "
            "data:image/png;base64,...",
            place,
        )
    if found["type"].lower() not in _TYPES or found["coding"] is None:
        raise InvalidRequestError(
            f"{place} is {found['type'] or 'of no type'}{found['coding'] or ' without base64'}: send PNG, JPEG or WebP "
            "as data:image/png;base64,...",
            place,
        )
    try:
        data = base64.b64decode(url[found.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"{place} is not valid base64 ({error}): send it again", place) from error
    return ImagePart(data, found["type"].lower(), detail, place)


def decode(part: ImagePart) -> Image.Image:
    """The picture upright (by its EXIF orientation), in RGB, as large as its `detail` allows.

    Raises:
        InvalidRequestError: the file is cut off or damaged.
    """
    try:
        with Image.open(io.BytesIO(part.data), formats=FORMATS) as opened:
            opened.load()
            upright = ImageOps.exif_transpose(opened).convert("RGB")
    except _DAMAGED as error:
        raise _damaged(part, error) from error
    if part.detail == "low":
        upright.thumbnail((LOW_DETAIL_SIDE, LOW_DETAIL_SIDE))
    return upright


def _read_size(part: ImagePart) -> tuple[int, int]:
    """Width and height by the file's header."""
    place = part.place
    if part.detail not in (None, *get_args(Detail)):
        raise InvalidRequestError(f"detail is {part.detail!r}: choose auto, low or high", f"{place}.detail")
    if len(part.data) > MAX_IMAGE_BYTES:
        raise InvalidRequestError(
            f"{place} has {len(part.data):,} bytes, at most {MAX_IMAGE_BYTES:,} are read: send a smaller file", place
        )
    try:
        with Image.open(io.BytesIO(part.data), formats=FORMATS) as opened:
            (width, height), moves = opened.size, opened.format in _MOVING and getattr(opened, "n_frames", 1) > 1
    except Image.DecompressionBombError as error:
        raise _too_large(place, "far") from error
    except _DAMAGED as error:
        raise _damaged(part, error) from error
    if width * height > MAX_IMAGE_PIXELS:
        raise _too_large(place, f"{width} x {height} pixels,")
    if moves:
        raise InvalidRequestError(f"{place} moves, and one picture is shown to the model: send one frame of it", place)
    return width, height


def _too_large(place: str, how: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{place} has {how} more than the {MAX_IMAGE_PIXELS:,} pixels that are unpacked: send it smaller", place
    )


def _damaged(part: ImagePart, error: Exception) -> InvalidRequestError:
    """Pillow's own words where they say what is wrong; they may hold an address in memory, or end with a stop."""
    why = "it is none of them" if isinstance(error, UnidentifiedImageError) else str(error).split(" <")[0].rstrip(". ")
    return InvalidRequestError(f"{part.place} is no whole PNG, JPEG or WebP file ({why}): send it again", part.place)
