from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from engine.console import Console
from engine.state.api_keys import Scope
from tests.engine.api.servers import call


def _send(app: Starlette, method: str, path: str, secret: str | None = None, **options: Any) -> httpx.Response:
    headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
    return call(app, method, f"/admin/keys{path}", headers=headers, **options)


def test_a_keys_life_purely_by_http(app: Starlette, console: Console) -> None:
    made = _send(app, "POST", "", json={"name": "root", "scopes": ["admin"]})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    root = made.json()["secret"]
    assert _send(app, "GET", "").status_code == 401, "from the first admin key on one is needed"

    body = {"name": "farm", "scopes": ["inference"], "expires_in_s": 60, "quota": {"concurrent_requests": 2}}
    farm = _send(app, "POST", "", root, json=body).json()
    key = farm["key"]
    assert key["expires_at_s"] == pytest.approx(key["created_at_s"] + 60)
    assert key["quota"] == {"requests_per_minute": None, "tokens_per_minute": None, "concurrent_requests": 2}
    headers = {"authorization": f"Bearer {farm['secret']}"}
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 200

    listed = _send(app, "GET", "", root).json()["data"]
    assert {item["name"] for item in listed} == {"root", "farm"}
    assert next(item for item in listed if item["name"] == "farm")["usage"]["num_requests"] == 1
    assert farm["secret"] not in str(listed)

    assert _send(app, "PUT", f"/{key['id']}/quota", root, json={"requests_per_minute": 9}).status_code == 204
    assert console.keys.identify(farm["secret"]).quota.requests_per_minute == 9
    assert _send(app, "DELETE", f"/{key['id']}", root).status_code == 204
    assert call(app, "GET", "/v1/models", headers=headers).status_code == 401
    response = _send(app, "DELETE", f"/{key['id']}", root)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "key_not_found")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["admin"]}, "name"),
        ({"name": " ", "scopes": ["admin"]}, "name"),
        ({"name": "x", "scopes": []}, "scopes"),
        ({"name": "x", "scopes": ["root"]}, "scopes.0"),
        ({"name": "x", "scopes": ["admin"], "expires_in_s": 0}, "expires_in_s"),
        ({"name": "x", "scopes": ["admin"], "quota": {"requests_per_minute": 0}}, "quota.requests_per_minute"),
        ({"name": "x", "scopes": ["admin"], "quota": {"requests_per_hour": 1}}, "quota.requests_per_hour"),
    ],
)
def test_a_key_that_is_refused_names_the_field(app: Starlette, body: dict[str, Any], param: str) -> None:
    response = _send(app, "POST", "", json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_who_has_no_admin_scope_makes_no_keys(app: Starlette, console: Console) -> None:
    console.keys.create("root", {Scope.ADMIN})
    secret = console.keys.create("farm", {Scope.INFERENCE, Scope.METRICS}).secret
    body = {"name": "mine", "scopes": ["admin"]}
    assert _send(app, "POST", "", secret, json=body).status_code == 403
    assert len(console.keys.list()) == 2
