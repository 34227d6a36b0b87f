from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from engine.config import Settings
from engine.errors import AuthenticationError, InvalidRequestError, KeyNotFoundError, StoreError
from engine.keyring import SETTING_NAME, Keyring, NewKey, has_answering_key
from engine.scheduling.quota import Quota
from engine.state.api_keys import ApiKeyStore, Scope, Usage
from engine.state.database import Database, open_database, sqlite_url
from tests.fakes import FakeClock, wait_until

_INFERENCE = frozenset({Scope.INFERENCE})
_ADMIN = frozenset({Scope.ADMIN})


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as one:
        yield one


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def keys(database: Database, clock: FakeClock) -> Iterator[Keyring]:
    one = Keyring(Settings(), ApiKeyStore(database), clock)
    yield one
    one.close()


def _guarded(keys: Keyring) -> set[Scope]:
    return {scope for scope in Scope if keys.is_guarded(scope)}


def _refusal(keys: Keyring, secret: str) -> str:
    with pytest.raises(AuthenticationError) as refusal:
        keys.identify(secret)
    return str(refusal.value)


def test_a_new_key_is_known_at_once(keys: Keyring) -> None:
    made = keys.create(" phone farm ", _INFERENCE, Quota(concurrent_requests=2))
    caller = keys.identify(made.secret)
    assert (caller.key_id, caller.name, caller.scopes) == (made.key.id, "phone farm", _INFERENCE)
    assert caller.quota == Quota(concurrent_requests=2)
    assert made.secret.startswith(made.key.prefix)
    assert made.secret not in f"{made!r} {made.key!r} {keys.list()!r}"


def test_what_is_stored_does_not_hold_the_secret(keys: Keyring, tmp_path: Path, database: Database) -> None:
    secret = keys.create("one", _INFERENCE).secret
    database.close()
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret.encode() not in stored
    assert secret[:12].encode() in stored


def test_strangers_and_revoked_keys_are_told_the_same(keys: Keyring) -> None:
    made = keys.create("one", _INFERENCE)
    keys.revoke(made.key.id)
    assert _refusal(keys, made.secret) == _refusal(keys, "agc_stranger") == _refusal(keys, "schlüssel")
    assert made.secret[:12] not in _refusal(keys, made.secret)


def test_an_expired_key(keys: Keyring, clock: FakeClock) -> None:
    made = keys.create("one", _INFERENCE, expires_at_s=clock.wall() + 10)
    keys.identify(made.secret)
    assert keys.may(made.key.id, Scope.INFERENCE)
    assert keys.find(made.key.id, Scope.INFERENCE) == keys.identify(made.secret)
    clock.advance(10)
    assert "has expired" in _refusal(keys, made.secret)
    assert not keys.may(made.key.id, Scope.INFERENCE)


def test_keys_of_the_setting_have_all_scopes(database: Database, clock: FakeClock) -> None:
    settings = Settings(api_keys=(SecretStr("first"), SecretStr("second")))
    keys = Keyring(settings, ApiKeyStore(database), clock)
    caller = keys.identify("second")
    assert (caller.key_id, caller.name, caller.scopes) == ("setting-2", SETTING_NAME, frozenset(Scope))
    assert _guarded(keys) == set(Scope)
    assert [key.id for key in keys.configured()] == ["setting-1", "setting-2"]
    with pytest.raises(KeyNotFoundError, match="keys of CONSOLE_API_KEYS are changed there"):
        keys.revoke("setting-2")
    keys.close()


def test_what_is_guarded_on_this_machine_alone(keys: Keyring, clock: FakeClock) -> None:
    assert _guarded(keys) == set()
    metrics = keys.create("metrics", {Scope.METRICS})
    assert _guarded(keys) == {Scope.INFERENCE, Scope.METRICS}
    admin = keys.create("admin", _ADMIN, expires_at_s=clock.wall() + 1)
    assert _guarded(keys) == set(Scope)
    clock.advance(5)
    assert _guarded(keys) == set(Scope), "the passing of time opens nothing"
    keys.revoke(admin.key.id)
    keys.revoke(metrics.key.id)
    assert _guarded(keys) == set()


def test_all_is_guarded_where_others_can_come(database: Database, clock: FakeClock) -> None:
    keys = Keyring(Settings(host="0.0.0.0"), ApiKeyStore(database), clock)
    assert _guarded(keys) == set(Scope)
    keys.close()


@pytest.mark.parametrize(
    ("scopes", "is_enough"), [({Scope.INFERENCE}, True), ({Scope.ADMIN}, True), ({Scope.METRICS}, False)]
)
def test_which_keys_let_the_console_be_reached(keys: Keyring, scopes: set[Scope], is_enough: bool) -> None:
    made = keys.create("one", scopes, expires_at_s=keys._clock.wall() + 10)
    now_s = made.key.created_at_s
    assert has_answering_key(keys.list(), now_s) is is_enough
    assert not has_answering_key(keys.list(), now_s + 10)
    keys.revoke(made.key.id)
    assert not has_answering_key(keys.list(), now_s)


def test_usage_is_kept_without_a_wait(keys: Keyring, database: Database, clock: FakeClock) -> None:
    made = keys.create("one", _INFERENCE)
    for _ in range(3):
        clock.advance(1)
        keys.identify(made.secret)
    keys.count(made.key.id, Usage(0, 1, 10, 20))
    (key,) = keys.list()
    assert key.usage == Usage(3, 1, 10, 20)
    assert key.last_used_at_s == clock.wall()
    keys.identify(made.secret)
    keys.close()
    (key,) = ApiKeyStore(database).read().values()
    assert key.usage == Usage(4, 1, 10, 20)


def test_usage_survives_a_store_that_fails_for_a_while(
    keys: Keyring, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = keys.create("one", _INFERENCE)

    def fail(*_: object) -> None:
        raise StoreError("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(keys._store, "add_uses", fail)
        keys.identify(made.secret)
        keys.count(made.key.id, Usage(num_output_tokens=5))
        with pytest.raises(StoreError):
            keys.list()
        keys.identify(made.secret)
    (key,) = keys.list()
    assert key.usage == Usage(2, 0, 0, 5)


def test_a_key_revoked_by_another_process_stops_here(
    keys: Keyring, database: Database, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr("engine.keyring.REFRESH_S", 0.01)
    other = Keyring(Settings(), ApiKeyStore(database), clock)
    made = keys.create("one", _INFERENCE)

    def is_known_there() -> bool:
        try:
            return other.identify(made.secret).key_id == made.key.id
        except AuthenticationError:
            return False

    wait_until(is_known_there)
    keys.revoke(made.key.id)
    wait_until(lambda: not is_known_there())
    other.close()


def test_another_quota_counts_from_the_next_request(keys: Keyring) -> None:
    made = keys.create("one", _INFERENCE)
    keys.set_quota(made.key.id, Quota(requests_per_minute=5))
    assert keys.identify(made.secret).quota == Quota(requests_per_minute=5)
    with pytest.raises(InvalidRequestError, match="requests_per_minute is 0"):
        keys.set_quota(made.key.id, Quota(requests_per_minute=0))


@pytest.mark.parametrize("key_id", ["key-unknown", ""])
def test_keys_that_are_not_there(keys: Keyring, key_id: str) -> None:
    for change in (lambda: keys.revoke(key_id), lambda: keys.set_quota(key_id, Quota())):
        with pytest.raises(KeyNotFoundError, match=f"has the id {key_id!r}"):
            change()


def test_keys_that_are_refused(keys: Keyring, clock: FakeClock) -> None:
    with pytest.raises(InvalidRequestError, match="the name has 0 characters; give the key one of 1 to 80"):
        keys.create("  ", _INFERENCE)
    with pytest.raises(InvalidRequestError, match="the name has 81 characters"):
        keys.create("x" * 81, _INFERENCE)
    with pytest.raises(InvalidRequestError, match="no scope; choose from inference, admin, metrics"):
        keys.create("one", ())
    with pytest.raises(InvalidRequestError, match="would have expired already"):
        keys.create("one", _INFERENCE, expires_at_s=clock.wall())
    with pytest.raises(InvalidRequestError, match="tokens_per_minute is 0"):
        keys.create("one", _INFERENCE, Quota(tokens_per_minute=0))
    assert keys.list() == ()


def test_secrets_are_never_logged(keys: Keyring, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        made: NewKey = keys.create("one", _INFERENCE)
        keys.identify(made.secret)
        _refusal(keys, "agc_stranger")
        keys.list()
        keys.revoke(made.key.id)
        _refusal(keys, made.secret)
    assert made.secret not in caplog.text
    assert "agc_stranger" not in caplog.text
