from __future__ import annotations

import base64
import io
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import InvalidRequestError
from engine.inference import images
from engine.inference.images import ImagePart, decode, read_data_url
from tests.vision_models import picture, picture_bytes

_PLACE = "messages.0.content.1.image_url"


def _url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_what_is_taken(kind: str) -> None:
    data = picture_bytes(0, 30, 20, kind)
    part = read_data_url(_url(data, f"image/{kind.lower()}"), None, _PLACE)
    assert (part.data, part.num_pixels, part.detail) == (data, 600, None)
    shown = decode(part)
    assert (shown.size, shown.mode) == ((30, 20), "RGB")
    assert part.data_url() == _url(data, f"image/{kind.lower()}")


def test_png_is_shown_as_it_is() -> None:
    assert decode(ImagePart(picture_bytes(7))).tobytes() == picture(7).tobytes()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://example.org/cat.png", "is a URL of https:, and this server fetches nothing for its callers: send"),
        ("http://169.254.169.254/latest", "is a URL of http:, and this server fetches nothing"),
        ("file:///etc/passwd", "is a URL of file:, and this server fetches nothing"),
        ("cat.png", "is no data: URL, and this server fetches nothing"),
        ("", "is no data: URL"),
        (_url(b"GIF89a", "image/gif"), "is image/gif;base64: send PNG, JPEG or WebP as data:image/png;base64,..."),
        (_url(b"<svg/>", "image/svg+xml"), r"is image/svg\+xml;base64: send PNG"),
        ("data:image/png,abc", "is image/png without base64: send"),
        ("data:image/png;base64,@@", "is not valid base64"),
        ("data:image/png;base64,", "is no whole PNG, JPEG or WebP file .it is none of them.: send it again"),
        (_url(b"GIF89a" + bytes(60)), "is no whole PNG, JPEG or WebP file"),
    ],
)
def test_what_is_refused(url: str, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said) as refused:
        read_data_url(url, None, _PLACE)
    assert str(refused.value).startswith(_PLACE)
    assert refused.value.param == _PLACE


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_is_cut_off(kind: str) -> None:
    data = picture_bytes(0, kind=kind)
    with pytest.raises(InvalidRequestError, match="is no whole PNG, JPEG or WebP file") as refused:
        decode(read_data_url(_url(data[: len(data) // 2]), None, _PLACE))
    assert refused.value.param == _PLACE


@given(st.binary(max_size=300), st.integers(0, 2000))
def test_damage_is_told_in_one_way(noise: bytes, place: int) -> None:
    """Whatever is broken, it is an error of ours or a picture."""
    whole = bytearray(picture_bytes(0, 16, 16, "JPEG"))
    whole[place : place + len(noise)] = noise
    with suppress(InvalidRequestError):
        decode(ImagePart(bytes(whole), place=_PLACE))


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """A header of 50,000 x 50,000 pixels in a file of some hundred bytes."""
    data = bytearray(_saved(Image.new("1", (8, 8))))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    with pytest.raises(InvalidRequestError, match="more than the 32,000,000 pixels that are unpacked: send it smaller"):
        ImagePart(bytes(data))


def test_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture_bytes(0, 10, 10)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 100)
    ImagePart(data)
    monkeypatch.setattr(images, "MAX_IMAGE_PIXELS", 99)
    with pytest.raises(InvalidRequestError, match="has 10 x 10 pixels, more than the 99"):
        ImagePart(data)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", len(data) - 1)
    with pytest.raises(InvalidRequestError, match=f"has {len(data)} bytes, at most {len(data) - 1} are read"):
        ImagePart(data)


def test_what_moves_is_refused() -> None:
    frames = [picture(seed, 8, 8) for seed in (1, 2)]
    for kind in ("PNG", "WEBP"):
        data = _saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(InvalidRequestError, match="moves, and one picture is shown to the model"):
            ImagePart(data)


def test_telephones_turn_pictures_by_exif() -> None:
    turned = picture(0, 40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    upright = decode(ImagePart(_saved(turned, "PNG", exif=exif)))
    assert upright.size == (20, 40)
    assert upright.tobytes() == turned.transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_other_colours_become_rgb(mode: str) -> None:
    shown = decode(ImagePart(_saved(picture(0, 12, 12).convert(mode))))
    assert (shown.mode, shown.size) == ("RGB", (12, 12))


def test_low_detail_shrinks_to_openais_size() -> None:
    data = _saved(Image.new("RGB", (1080, 2400)))
    assert decode(ImagePart(data, detail="low")).size == (230, 512)
    assert decode(ImagePart(data, detail="high")).size == (1080, 2400)
    assert decode(ImagePart(picture_bytes(), detail="low")).size == (56, 56)


def test_a_repr_tells_pictures_apart_and_holds_none() -> None:
    first, second = ImagePart(picture_bytes(1)), ImagePart(picture_bytes(2))
    assert repr(first) != repr(second)
    assert first == ImagePart(picture_bytes(1), place="elsewhere")
    assert len(repr(first)) < 200
    assert first.shown() == f"[image/png, {len(first.data):,} bytes, SHA-256 {first.sha256[:12]}]"
