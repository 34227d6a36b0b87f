from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import InvalidRequestError
from engine.remote import RemoteSpec

SPEC = RemoteSpec("far", "http://10.0.0.7:8000", "qwen")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000/v1"),
        (" http://10.0.0.7:8000/ ", "http://10.0.0.7:8000/v1"),
        ("https://models.example/openai/v1/", "https://models.example/openai/v1"),
        ("http://[::1]:8000/v1", "http://[::1]:8000/v1"),
    ],
)
def test_the_url_has_one_form(url: str, kept: str) -> None:
    assert replace(SPEC, base_url=url).checked().base_url == kept


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"name": ""}, "name"),
        ({"model": " qwen"}, "model"),
        ({"base_url": "10.0.0.7:8000"}, "base_url"),
        ({"base_url": "ftp://10.0.0.7/v1"}, "base_url"),
        ({"base_url": "http://me:secret@10.0.0.7/v1"}, "base_url"),
        ({"key_variable": "sk-secret"}, "key_variable"),
        ({"context_length": 0}, "context_length"),
        ({"bits_per_weight": 0.5}, "bits_per_weight"),
        ({"max_running": 0}, "max_running"),
        ({"check_every_s": 0.0}, "check_every_s"),
        ({"check_timeout_s": float("nan")}, "check_timeout_s"),
        ({"silence_s": 1e9}, "silence_s"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(fields: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        replace(SPEC, **fields).checked()
    assert caught.value.param == param
    assert "secret" not in str(caught.value)
