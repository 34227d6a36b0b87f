from __future__ import annotations

import re
from dataclasses import replace

import pytest

from engine.errors import StoreError
from engine.scheduling.quota import Quota
from engine.state.api_keys import ApiKey, ApiKeyStore, Scope, Usage, Use, digest_of, new_key_id, new_secret
from engine.state.database import Database

_KEY = ApiKey(
    "key-1", "phone farm", "agc_abcdefgh", frozenset({Scope.INFERENCE, Scope.METRICS}), Quota(60, None, 4), 100.0, 900.0
)


@pytest.fixture
def store(database: Database) -> ApiKeyStore:
    return ApiKeyStore(database)


def _only(store: ApiKeyStore) -> ApiKey:
    (key,) = store.read().values()
    return key


def test_a_key_comes_back_as_it_was(store: ApiKeyStore, database: Database) -> None:
    store.add(_KEY, "digest")
    assert store.read() == {"digest": _KEY}
    assert ApiKeyStore(database).read() == {"digest": _KEY}


def test_newest_first(store: ApiKeyStore) -> None:
    store.add(_KEY, "a")
    store.add(replace(_KEY, id="key-2", created_at_s=200.0), "b")
    assert [key.id for key in store.read().values()] == ["key-2", "key-1"]


def test_revoked_once_and_kept(store: ApiKeyStore) -> None:
    store.add(_KEY, "digest")
    assert store.revoke("key-1", 300.0)
    assert _only(store).revoked_at_s == 300.0
    assert not store.revoke("key-1", 400.0)
    assert _only(store).revoked_at_s == 300.0
    assert not store.set_quota("key-1", Quota())
    assert not store.revoke("key-9", 1.0)


def test_another_quota(store: ApiKeyStore) -> None:
    store.add(_KEY, "digest")
    assert store.set_quota("key-1", Quota(None, 5_000_000_000 // 10, None))
    assert _only(store).quota == Quota(None, 500_000_000, None)


def test_uses_add_up(store: ApiKeyStore) -> None:
    store.add(_KEY, "digest")
    store.add_uses({"key-1": Use(Usage(1, 0, 10, 20), 500.0), "key-9": Use(Usage(1), 500.0)})
    store.add_uses({"key-1": Use(Usage(2, 1, 0, 5), 600.0)})
    assert _only(store).usage == Usage(3, 1, 10, 25)
    assert _only(store).last_used_at_s == 600.0


def test_a_scope_that_is_not_known_here_opens_nothing(store: ApiKeyStore, database: Database) -> None:
    store.add(_KEY, "digest")
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE api_keys SET scopes = 'everything,metrics'")
    assert _only(store).scopes == {Scope.METRICS}


def test_the_same_secret_twice_is_refused_and_nothing_changes(store: ApiKeyStore) -> None:
    store.add(_KEY, "digest")
    with pytest.raises(StoreError):
        store.add(replace(_KEY, id="key-2"), "digest")
    assert len(store.read()) == 1


def test_secrets_are_random_and_only_their_hash_is_for_keeping() -> None:
    secrets = {new_secret() for _ in range(50)}
    assert len(secrets) == 50
    assert all(re.fullmatch(r"agc_[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert re.fullmatch(r"key-[0-9a-f]{12}", new_key_id())


def test_expiry() -> None:
    assert not _KEY.is_expired(899.9)
    assert _KEY.is_expired(900.0)
    assert not replace(_KEY, expires_at_s=None).is_expired(1e12)
