"""Pictures in the playground: attached to a prompt, kept, shown, and read again to be sent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from engine.errors import InvalidRequestError
from engine.inference.images import MAX_IMAGE_BYTES, Content, ImagePart, check_num_images, decode
from engine.state import ImageStore, KeptImage, Said

_ENDINGS = ("png", "jpg", "jpeg", "webp")
_THUMBNAIL_SIDE = 640
_SHOWN_WIDTH = 160


@dataclass(frozen=True, slots=True)
class Asked:
    """What was sent: text, pictures, or both."""

    text: str
    images: tuple[KeptImage, ...] = ()


def ask(store: ImageStore, *, with_images: bool, is_disabled: bool) -> Asked | None:
    """Draw the prompt's field; what was sent with it, pictures kept, or None. A file that is refused keeps the whole
    prompt from being sent, and its text stays to be copied."""
    if not with_images:
        text = st.chat_input("Ask something", key="prompt", disabled=is_disabled)
        return Asked(text.strip()) if text and text.strip() else None
    sent = st.chat_input(
        "Ask something, with pictures if you like",
        key="prompt.images",
        accept_file="multiple",
        file_type=list(_ENDINGS),
        max_upload_size=MAX_IMAGE_BYTES // 2**20,
        disabled=is_disabled,
    )
    if sent is None or not (sent.text.strip() or sent.files):
        return None
    text = sent.text.strip()
    try:
        parts = _check(sent.files)
    except InvalidRequestError as error:
        st.error(f"Nothing was sent. {error}", icon=":material/broken_image:")
        if text:
            st.code(text, language=None, wrap_lines=True)
        return None
    return Asked(text, tuple(store.keep(part, name) for part, name in parts))


def show_pictures(store: ImageStore, images: Sequence[KeptImage]) -> None:
    """The pictures of a prompt, small, in a row; each opens larger."""
    if not images:
        return
    with st.container(horizontal=True):
        for image in images:
            small = _thumbnail(store, image, image.sha256)
            if small is None:
                st.caption(f":material/broken_image: {image.name} is not kept here")
            else:
                st.image(small, image.name, width=_SHOWN_WIDTH)


def read_content(store: ImageStore, said: Said) -> Content:
    """A message's content as the engine takes it, pictures before the text; a word for one that is not kept here."""
    if not said.images:
        return said.text
    parts = [_load(store, image) or f"[{image.name}]" for image in said.images]
    return (*parts, said.text) if said.text else tuple(parts)


def _check(files: Sequence[UploadedFile]) -> list[tuple[ImagePart, str]]:
    parts = [(ImagePart(file.getvalue(), _media_type(file.name), place=file.name), file.name) for file in files]
    check_num_images([part for part, _ in parts])
    for part, _ in parts:
        decode(part)
    return parts


def _load(store: ImageStore, image: KeptImage) -> ImagePart | None:
    data = store.read(image)
    return None if data is None else ImagePart(data, image.media_type, place=image.name)


def _media_type(name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    return f"image/{'jpeg' if ending == 'jpg' else ending}" if ending in _ENDINGS else "image/png"


@st.cache_data(max_entries=64, show_spinner=False)
def _thumbnail(_store: ImageStore, _image: KeptImage, sha256: str) -> bytes | None:  # noqa: ARG001 - the cache's key
    """A JPEG within 640 x 640 pixels; None where the picture is not kept here."""
    part = _load(_store, _image)
    if part is None:
        return None
    picture = decode(part)
    picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
