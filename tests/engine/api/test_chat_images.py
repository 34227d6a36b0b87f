"""Pictures over HTTP: a real console with the tiny Glm4v, asked by OpenAI's client."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from engine.config import Settings
from engine.console import Console, open_console
from engine.scheduling.router import Feature
from tests.engine.api.servers import await_ready, build_app, serve
from tests.vision_models import picture_bytes, save_tiny_glm4v

_SETTINGS = {"log_prompts": True, "log_format": "json", "response_cache_mib": 1.0}


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    home = tmp_path_factory.mktemp("vision-home")
    folder = save_tiny_glm4v(home / "model")
    settings = Settings(home=home, model=str(folder), model_name="glm", device="cpu", kv_cache_gib=0.1)
    console = open_console(settings.model_copy(update=_SETTINGS))
    await_ready(console)
    yield console
    console.close()


@pytest.fixture(scope="module")
def glm(console: Console) -> Iterator[openai.OpenAI]:
    with (
        serve(build_app(console)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client,
    ):
        yield client


def _url(seed: int = 0, data: bytes | None = None) -> str:
    return f"data:image/png;base64,{base64.b64encode(data or picture_bytes(seed)).decode()}"


def _ask(client: openai.OpenAI, *parts: Any, **fields: Any) -> Any:
    messages: Any = [{"role": "user", "content": list(parts)}]
    return client.chat.completions.create(
        **{"model": "glm", "messages": messages, "max_tokens": 6, "temperature": 0, **fields}
    )


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}


def test_a_picture_is_seen_and_counted(glm: openai.OpenAI) -> None:
    seen = [_ask(glm, _image(_url(seed)), _text("What is this?")) for seed in (0, 1)]
    plain = _ask(glm, _text("What is this?"))
    assert seen[0].choices[0].message.content != seen[1].choices[0].message.content
    assert seen[0].usage.prompt_tokens == plain.usage.prompt_tokens + 49 + 2


def test_streaming(glm: openai.OpenAI) -> None:
    whole = _ask(glm, _image(_url()), _text("What is this?"))
    chunks = list(_ask(glm, _image(_url()), _text("What is this?"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content


def test_several_answers(glm: openai.OpenAI) -> None:
    answer = _ask(glm, _image(_url()), _text("?"), n=2, temperature=1.0, seed=3)
    assert len(answer.choices) == 2


@pytest.mark.parametrize(
    ("part", "param", "said"),
    [
        (_image("https://example.org/cat.png"), "image_url", "this server fetches nothing for its callers"),
        (_image(_url(data=picture_bytes()[:4000])), "image_url", "is no whole PNG, JPEG or WebP file"),
        (_image("data:image/gif;base64,R0lG"), "image_url", "send PNG, JPEG or WebP"),
        (_image(_url(), detail="most"), "image_url.detail", "'auto', 'low' or 'high'"),
        (_image(_url(), size=3), "image_url.size", "is not supported by this server"),
        ({"type": "input_audio", "input_audio": {}}, "type", "'text' or 'image_url'"),
    ],
)
def test_what_is_refused_is_named(glm: openai.OpenAI, part: Any, param: str, said: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        _ask(glm, _text("Look:"), part)
    assert refused.value.param == f"messages.0.content.1.{param}"
    assert said in str(refused.value)


def test_pictures_belong_to_the_user(glm: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": [_image(_url())]}, {"role": "user", "content": "?"}]
    with pytest.raises(openai.BadRequestError, match="only a user's may hold one") as refused:
        _ask(glm, messages=messages)
    assert refused.value.param == "messages.0.content.0.image_url"


def test_too_many(glm: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="17 pictures in one request, at most 16 are taken") as refused:
        _ask(glm, *[_image(_url())] * 17)
    assert refused.value.param == "messages.0.content.16.image_url"


def test_responses_take_them_too(glm: openai.OpenAI) -> None:
    content: Any = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": _url(1), "detail": "auto"},
    ]
    first = glm.responses.create(
        model="glm", input=[{"role": "user", "content": content}], max_output_tokens=6, temperature=0
    )
    assert first.usage is not None
    assert first.usage.input_tokens > 49
    on = glm.responses.create(
        model="glm", input="And now?", previous_response_id=first.id, max_output_tokens=6, temperature=0
    )
    assert on.usage is not None
    assert on.usage.input_tokens > first.usage.input_tokens
    content[1]["image_url"] = "https://example.org/cat.png"
    with pytest.raises(openai.BadRequestError, match="fetches nothing") as refused:
        glm.responses.create(model="glm", input=[{"role": "user", "content": content}])
    assert refused.value.param == "input.0.content.1.image_url"


def test_the_kept_answer_is_that_of_the_picture(glm: openai.OpenAI) -> None:
    def ask(seed: int) -> tuple[str, str | None]:
        messages: Any = [{"role": "user", "content": [_image(_url(seed)), _text("Kept?")]}]
        raw = glm.chat.completions.with_raw_response.create(model="glm", messages=messages, max_tokens=6, temperature=0)
        return raw.headers["x-cache"], raw.parse().choices[0].message.content

    first, other, again = ask(4), ask(5), ask(4)
    assert [first[0], other[0], again[0]] == ["MISS", "MISS", "HIT"]
    assert again[1] == first[1] != other[1]


def test_logs_hold_no_picture(glm: openai.OpenAI, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        _ask(glm, _image(_url(8)), _text("Secret?"), temperature=1.0)
    lines = [str(vars(record)) for record in caplog.records]
    assert any("Secret?" in line and "image/png" in line for line in lines)
    encoded = base64.b64encode(picture_bytes(8)).decode()
    assert not any(encoded[100:140] in line for line in lines)


def test_the_router_knows(console: Console) -> None:
    (candidate,) = console.gateway.candidates()
    assert Feature.IMAGES in candidate.features


def test_a_model_of_text_alone(tiny_console: Console) -> None:
    with (
        serve(build_app(tiny_console)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client,
    ):
        for model in ("tiny", "auto"):
            with pytest.raises(openai.BadRequestError, match="no images") as refused:
                _ask(client, _text("?"), _image(_url()), model=model)
            assert refused.value.param == "messages.0.content.1.image_url"


def test_tokenize_counts_them(console: Console) -> None:
    from engine.inference.images import ImagePart
    from engine.inference.request import Message
    from engine.inference.tokens import TokenizeRequest

    shown = console.gateway.tokenize(
        TokenizeRequest("glm", messages=(Message("user", (ImagePart(picture_bytes()), "Hi")),))
    )
    plain = console.gateway.tokenize(TokenizeRequest("glm", messages=(Message("user", "Hi"),)))
    assert len(shown.ids) == len(plain.ids) + 51
