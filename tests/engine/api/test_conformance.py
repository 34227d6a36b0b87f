"""Requests made of the OpenAPI documents, against a real server: none has it fail, and each is answered as the document
says. Keys are not among what is made up (test_auth.py)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from engine.config import Settings
from engine.console import Console, open_console
from tests.engine.api.described import METHODS, Operation, answerable, document_for, operations, paths
from tests.engine.api.servers import await_ready, build_app, call, serve

if TYPE_CHECKING:
    from schemathesis import Case

pytestmark = pytest.mark.slow

_SECRET = "conformance-secret"
_HEADERS = {"authorization": f"Bearer {_SECRET}"}
_NUM_EXAMPLES = 4
# Not whether all that a schema allows is accepted: which texts are too long, and what fits together, is not in it.
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
_bounded = settings(
    max_examples=_NUM_EXAMPLES,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class _Server(NamedTuple):
    url: str
    client: httpx.Client
    known: Mapping[str, str]


@pytest.fixture(scope="module")
def console(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """With the tiny model, which answers briefly where nobody says how long."""
    one = open_console(
        Settings(
            home=tmp_path_factory.mktemp("conformance"),
            model=str(tiny_folder),
            model_name="tiny",
            device="cpu",
            kv_cache_gib=0.1,
            api_keys=(_SECRET,),  # type: ignore[arg-type]
            default_max_tokens=8,
            response_cache_mib=8,
        )
    )
    await_ready(one)
    yield one
    one.close()


@pytest.fixture(scope="module")
def server(console: Console) -> Iterator[_Server]:
    with serve(build_app(console)) as url, httpx.Client(base_url=url, headers=_HEADERS, timeout=60) as client:
        yield _Server(url, client, _make_known(client))


def _make_known(client: httpx.Client) -> dict[str, str]:
    """One of each kind of thing that has an id."""
    row = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": {"model": "tiny", "prompt": "a"}}
    file = ("rows.jsonl", json.dumps(row).encode())
    file_id = client.post("/v1/files", data={"purpose": "batch"}, files={"file": file}).json()["id"]
    batch = {"input_file_id": file_id, "endpoint": "/v1/completions", "completion_window": "24h"}
    response = {"model": "tiny", "input": "a", "max_output_tokens": 2, "background": True}
    key = {"name": "known", "scopes": ["metrics"]}
    return {
        "name": "tiny",
        "file_id": file_id,
        "batch_id": client.post("/v1/batches", json=batch).json()["id"],
        "response_id": client.post("/v1/responses", json=response).json()["id"],
        "key_id": client.post("/admin/keys", json=key).json()["key"]["id"],
    }


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_every_operation_answers_as_it_is_described(server: _Server, operation: Operation) -> None:
    from schemathesis import GenerationMode

    document = document_for(operation, server.known)
    described = document["paths"][operation.path][operation.method]
    _ask(server, operation, answerable(document), GenerationMode.POSITIVE)
    if "requestBody" in described or any(one["in"] == "query" for one in described.get("parameters", ())):
        _ask(server, operation, document, GenerationMode.NEGATIVE)


def _ask(server: _Server, operation: Operation, document: dict[str, Any], mode: Any) -> None:
    import schemathesis
    from schemathesis.checks import CHECKS, load_all_checks

    load_all_checks()
    checks = CHECKS.get_by_names(_CHECKS)
    schema = schemathesis.openapi.from_dict(document)

    @seed(0)
    @_bounded
    @given(case=schema[operation.path][operation.method].as_strategy(mode))
    def ask(case: Case) -> None:
        case.call_and_validate(f"{server.url}{operation.mount}", headers=_HEADERS, checks=checks, timeout=60)

    ask()


@pytest.mark.parametrize(("path", "methods"), paths())
def test_what_is_not_described_is_not_allowed(server: _Server, path: str, methods: frozenset[str]) -> None:
    """But for a path that another one's name, which may have slashes, covers."""
    others = [known for template, known in paths() if _covers(template, path)]
    url = re.sub(r"\{\w+\}", "x", path)
    for method in set(METHODS) - methods.union(*others):
        answer = server.client.request(method.upper(), url)
        assert answer.status_code == 405, f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.headers["allow"]


def _covers(template: str, path: str) -> bool:
    return "{" in template and re.fullmatch(re.sub(r"\{\w+\}", ".+", template), path) is not None


_HEADER_NAMES = st.sampled_from(
    ("authorization", "x-request-id", "traceparent", "cache-control", "content-type", "accept", "host", "x-batch-key")
)
_HEADER_VALUES = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])).map(str.strip)


@settings(max_examples=100, derandomize=True, database=None)
@given(
    headers=st.dictionaries(_HEADER_NAMES, _HEADER_VALUES, max_size=3),
    body=st.sampled_from((b"", b"null", b'"\\ud800"', b"[]", b"\xff", b'{"model": null}', b"9" * 5000, b"[" * 3000)),
    path=st.sampled_from(("/v1/completions", "/v1/files", "/tokenize", "/admin/keys", "/metrics", "/v1/models/%ff%00")),
)
def test_no_header_and_no_body_has_it_fail(
    ask_in_process: Callable[..., httpx.Response], headers: dict[str, str], body: bytes, path: str
) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = ask_in_process("POST", path, headers=encoded, content=body)
    assert answer.status_code < 500, answer.text
    assert answer.status_code in (405,) or "error" in answer.json()


@pytest.fixture(scope="module")
def ask_in_process(console: Console) -> Callable[..., httpx.Response]:
    """Through ASGI: what comes is what an HTTP parser would let pass, and none has to be asked."""
    app = build_app(console)
    return lambda method, path, **options: call(app, method, path, **options)
