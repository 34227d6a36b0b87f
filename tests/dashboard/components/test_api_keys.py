from __future__ import annotations

from dataclasses import replace
from datetime import UTC

from dashboard.components.api_keys import key_rows, key_state
from engine.scheduling.quota import Quota
from engine.state.api_keys import ApiKey, Scope, Usage

_KEY = ApiKey(
    "key-1",
    "farm",
    "agc_abcdefgh",
    frozenset({Scope.METRICS, Scope.INFERENCE}),
    Quota(1_000, None, 4),
    created_at_s=0.0,
    expires_at_s=90.0,
    usage=Usage(7, 1, 10, 20),
)


def test_a_row() -> None:
    row = {name: column[0] for name, column in key_rows([_KEY], 60.0, UTC).items()}
    assert row == {
        "Name": "farm",
        "Secret": "agc_abcdefgh…",
        "State": "in force",
        "Scopes": ["inference", "metrics"],
        "Last used": "never",
        "Requests": 7,
        "Rejected": 1,
        "Prompt tokens": 10,
        "Output tokens": 20,
        "Requests/min": "1,000",
        "Tokens/min": "–",
        "At once": "4",
        "Created": "1970-01-01 00:00",
        "Expires": "1970-01-01 00:01",
    }


def test_states() -> None:
    assert key_state(_KEY, 89.0) == "in force"
    assert key_state(_KEY, 90.0) == "expired"
    assert key_state(replace(_KEY, revoked_at_s=1.0), 0.0) == "revoked"
