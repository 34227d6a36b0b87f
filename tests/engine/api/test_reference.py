from __future__ import annotations

import re

import pytest
from starlette.applications import Starlette

from engine.api.reference import render
from tests.engine.api.servers import build_app, call


@pytest.fixture(scope="module")
def empty_app() -> Starlette:
    return build_app(None)


@pytest.mark.parametrize("mount", ["/v1", "/admin"])
def test_the_page_has_every_operation_and_nothing_from_elsewhere(empty_app: Starlette, mount: str) -> None:
    answer = call(empty_app, "GET", f"{mount}/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://|//\w+\.|<script|src=", answer.text)
    document = call(empty_app, "GET", f"{mount}/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {mount}{path}" in answer.text
    targets = set(re.findall(r'href="#(\w+)"', answer.text))
    assert targets <= set(re.findall(r'id="(\w+)"', answer.text))
    assert call(empty_app, "GET", f"{mount}/redoc").status_code == 404


def test_what_a_field_may_be_is_told_in_words(empty_app: Starlette) -> None:
    page = call(empty_app, "GET", "/v1/docs").text
    assert "<code>messages</code> *<td>list of " in page
    assert "number or null" in page
    assert "<code>batch</code>" in page


def test_what_a_description_holds_is_text() -> None:
    operation = {"summary": "<script>", "responses": {"200": {"description": "<b>"}}}
    page = render({"info": {"title": "<i>"}, "paths": {"/<a>": {"get": operation}}}, "/v1")
    assert not re.findall("<script|<b>|<i>|<a>", page)
