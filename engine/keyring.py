"""The API keys in force: those of the setting CONSOLE_API_KEYS and those made on the settings page.

They are held in memory, so telling who asks costs a request no wait for a disk, and neither does counting what was
used: a thread writes that out, and reads the keys again, so that one revoked by another process that shares the state
stops here too.
"""

from __future__ import annotations

import hmac
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from engine.clock import Clock
from engine.config import Settings
from engine.errors import AuthenticationError, InvalidRequestError, KeyNotFoundError, StoreError
from engine.scheduling.quota import Quota
from engine.state.api_keys import (
    MAX_NAME_LENGTH,
    PREFIX_LENGTH,
    ApiKey,
    ApiKeyStore,
    Scope,
    Usage,
    Use,
    digest_of,
    new_key_id,
    new_secret,
)

SETTING_NAME = "CONSOLE_API_KEYS"
REFRESH_S = 2.0
_CONFIGURED = "setting-"
ALL_SCOPES = frozenset(Scope)
_JOIN_TIMEOUT_S = 10.0
_ANSWERING = frozenset({Scope.INFERENCE, Scope.ADMIN})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `key_id` is None for whoever asks where no key is needed."""

    key_id: str | None
    name: str
    scopes: frozenset[Scope]
    quota: Quota


ANONYMOUS = Caller(None, "anonymous", ALL_SCOPES, Quota())


class NewKey(NamedTuple):
    """A key and its secret, which nothing tells a second time."""

    key: ApiKey
    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.key!r}, secret hidden)"


class _Held(NamedTuple):
    digest: str
    key: ApiKey


class Keyring:
    """Who may do what. Every method may be called from any thread."""

    def __init__(self, settings: Settings, store: ApiKeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._is_local = settings.is_local
        secrets = [key.get_secret_value() for key in settings.api_keys]
        self._configured = [
            _Held(digest_of(secret), _configured_key(number)) for number, secret in enumerate(secrets, 1)
        ]
        self._held: Mapping[str, _Held] = {}  # in force, by part of the digest; replaced whole, so read without a lock
        self._guarded: frozenset[Scope] = ALL_SCOPES
        self._lock = threading.Lock()  # one change or reading of the store at a time
        self._uses: dict[str, Use] = {}
        self._uses_lock = threading.Lock()
        self._closing = threading.Event()
        with self._lock:
            self._read()
        self._thread = threading.Thread(target=self._run, name="api-keys", daemon=True)
        self._thread.start()

    def is_guarded(self, scope: Scope) -> bool:
        """Whether this scope needs a key. Where only this machine can reach the console, inference and readings need
        one as soon as there is any, and administration as soon as there is one that opens it: else nobody could."""
        return scope in self._guarded

    def identify(self, secret: str) -> Caller:
        """Whose secret this is. A revoked key is answered as an unknown one: nobody learns that what was stolen was
        real.

        Raises:
            AuthenticationError: it is not in force.
        """
        digest = digest_of(secret)
        held = self._held.get(_place(digest))
        if held is None or not hmac.compare_digest(held.digest, digest):
            raise AuthenticationError("this key is not known here: use another one, or ask whoever runs this console")
        key, now_s = held.key, self._clock.wall()
        if key.is_expired(now_s):
            raise AuthenticationError("this key has expired: ask whoever runs this console for a new one")
        self._count(key.id, Use(Usage(num_requests=1), now_s))
        return _caller(key)

    def find(self, key_id: str, scope: Scope) -> Caller | None:
        """Whom the key by that id speaks for; None where it is not in force, or has not this scope."""
        keys = (held.key for held in self._held.values())
        key = next((key for key in keys if key.id == key_id), None)
        is_good = key is not None and scope in key.scopes and not key.is_expired(self._clock.wall())
        return _caller(key) if key is not None and is_good else None

    def may(self, key_id: str, scope: Scope) -> bool:
        """Whether the key by that id is in force and has this scope."""
        return self.find(key_id, scope) is not None

    def count(self, key_id: str, usage: Usage) -> None:
        """Add to what was done with a key. Takes microseconds; a thread writes it down."""
        self._count(key_id, Use(usage, self._clock.wall()))

    def create(
        self, name: str, scopes: Iterable[Scope], quota: Quota | None = None, expires_at_s: float | None = None
    ) -> NewKey:
        """Make a key, which is in force at once.

        Raises:
            InvalidRequestError: the name is empty or too long, there is no scope, a bound is none, or the time is over.
            StoreError: it cannot be kept.
        """
        secret, now_s = new_secret(), self._clock.wall()
        key = ApiKey(
            new_key_id(), name.strip(), secret[:PREFIX_LENGTH], frozenset(scopes), quota or Quota(), now_s, expires_at_s
        )
        _check(key, now_s)
        with self._lock:
            self._store.add(key, digest_of(secret))
            self._read()
        return NewKey(key, secret)

    def revoke(self, key_id: str) -> None:
        """End a key: the next request with it is refused.

        Raises:
            KeyNotFoundError: no key made here and in force has that id.
            StoreError: it cannot be written down; the key stays in force.
        """
        with self._lock:
            is_done = self._store.revoke(key_id, self._clock.wall())
            self._read()
        _demand(is_done, key_id)

    def set_quota(self, key_id: str, quota: Quota) -> None:
        """Change what a key may use, from the next request on.

        Raises:
            InvalidRequestError: a bound is none.
            KeyNotFoundError, StoreError: see `revoke`.
        """
        quota.check()
        with self._lock:
            is_done = self._store.set_quota(key_id, quota)
            self._read()
        _demand(is_done, key_id)

    def list(self) -> tuple[ApiKey, ...]:
        """All keys made here, newest first and with all their usage; revoked ones too. StoreError when it cannot be
        read."""
        with self._lock:
            self._write_uses()
            return tuple(self._store.read().values())

    def configured(self) -> tuple[ApiKey, ...]:
        """The keys of the setting, whose usage is not kept."""
        return tuple(held.key for held in self._configured)

    def close(self) -> None:
        """Write down what was used, and end the thread."""
        self._closing.set()
        self._thread.join(_JOIN_TIMEOUT_S)

    def _count(self, key_id: str, use: Use) -> None:
        if key_id.startswith(_CONFIGURED):
            return
        with self._uses_lock:
            before = self._uses.get(key_id)
            self._uses[key_id] = use if before is None else Use(before.usage + use.usage, use.last_used_at_s)

    def _run(self) -> None:
        has_failed = False
        while True:
            is_over = self._closing.wait(REFRESH_S)
            try:
                with self._lock:
                    self._write_uses()
                    self._read()
                has_failed = False
            except StoreError as error:
                if not has_failed or is_over:
                    logger.warning("the usage of API keys cannot be written: %s", error)
                has_failed = True
            if is_over:
                return

    def _write_uses(self) -> None:
        with self._uses_lock:
            uses, self._uses = self._uses, {}
        try:
            if uses:
                self._store.add_uses(uses)
        except StoreError:
            for key_id, use in uses.items():
                self._count(key_id, use)
            raise

    def _read(self) -> None:
        now = [_Held(digest, key) for digest, key in self._store.read().items() if key.revoked_at_s is None]
        held = [*now, *self._configured]
        self._guarded = _guarded_scopes([item.key for item in held], is_local=self._is_local)
        self._held = {_place(item.digest): item for item in held}


def has_answering_key(keys: Iterable[ApiKey], now_s: float) -> bool:
    """Whether a key is in force that opens inference or administration."""
    return any(key.scopes & _ANSWERING and key.revoked_at_s is None and not key.is_expired(now_s) for key in keys)


def _guarded_scopes(keys: Iterable[ApiKey], *, is_local: bool) -> frozenset[Scope]:
    """What needs a key, given those that were not revoked. An expired one still guards: the passing of time must not
    open anything."""
    if not is_local:
        return ALL_SCOPES
    scopes = [key.scopes for key in keys]
    if not scopes:
        return frozenset()
    is_administered = any(Scope.ADMIN in some for some in scopes)
    return ALL_SCOPES if is_administered else ALL_SCOPES - {Scope.ADMIN}


def _place(digest: str) -> str:
    """Where a digest is looked up. What is timed there is a hash, of which nobody can choose a part."""
    return digest[:16]


def _caller(key: ApiKey) -> Caller:
    return Caller(key.id, key.name, key.scopes, key.quota)


def _configured_key(number: int) -> ApiKey:
    return ApiKey(f"{_CONFIGURED}{number}", SETTING_NAME, "", ALL_SCOPES, Quota(), 0.0)


def _check(key: ApiKey, now_s: float) -> None:
    if not 0 < len(key.name) <= MAX_NAME_LENGTH:
        raise InvalidRequestError(
            f"the name has {len(key.name)} characters; give the key one of 1 to {MAX_NAME_LENGTH}", "name"
        )
    if not key.scopes:
        raise InvalidRequestError(f"the key has no scope; choose from {', '.join(Scope)}", "scopes")
    if key.is_expired(now_s):
        raise InvalidRequestError("the key would have expired already; choose a later time", "expires_at_s")
    key.quota.check()


def _demand(is_done: bool, key_id: str) -> None:
    if not is_done:
        raise KeyNotFoundError(f"no key in force has the id {key_id!r}; keys of {SETTING_NAME} are changed there")
