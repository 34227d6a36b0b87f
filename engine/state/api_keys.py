"""API keys in the state database, one row each. The secrets are not there: only their SHA-256.

A plain hash is right for these secrets, and no slow one is needed: a secret is 256 random bits, so nobody finds it by
trying, however fast the trying is. Passwords that people choose would need a slow, salted hash.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import BigInteger, Column, Double, MetaData, RowMapping, String, Table, Text, insert, select, update

from engine.scheduling.quota import Quota
from engine.state.database import Database

PREFIX_LENGTH = 12
MAX_NAME_LENGTH = 80
_MARK = "agc_"
_SECRET_BYTES = 32

_METADATA = MetaData()
_TABLE = Table(
    "api_keys",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("name", Text, nullable=False),
    Column("prefix", String(PREFIX_LENGTH), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", Text, nullable=False),
    Column("created_at_s", Double, nullable=False),
    Column("expires_at_s", Double),
    Column("revoked_at_s", Double),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("concurrent_requests", BigInteger),
    Column("last_used_at_s", Double),
    Column("num_requests", BigInteger, nullable=False, default=0),
    Column("num_rejected", BigInteger, nullable=False, default=0),
    Column("num_prompt_tokens", BigInteger, nullable=False, default=0),
    Column("num_output_tokens", BigInteger, nullable=False, default=0),
)


class Scope(StrEnum):
    """What a key opens: asking models; the pages and the admin API; the readings, to read only."""

    INFERENCE = "inference"
    ADMIN = "admin"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Usage:
    """What was done with a key. `num_rejected` counts requests that were turned away for a quota or a full queue;
    they are among `num_requests`."""

    num_requests: int = 0
    num_rejected: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.num_requests + other.num_requests,
            self.num_rejected + other.num_rejected,
            self.num_prompt_tokens + other.num_prompt_tokens,
            self.num_output_tokens + other.num_output_tokens,
        )


@dataclass(frozen=True, slots=True)
class Use:
    """Usage to add, and when the key was last seen, in seconds since the epoch."""

    usage: Usage
    last_used_at_s: float


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. Times are seconds since the epoch.

    Attributes:
        prefix: the first characters of the secret, to tell keys apart by.
        expires_at_s: None for a key that does not.
        revoked_at_s: None while it is in force.
    """

    id: str
    name: str
    prefix: str
    scopes: frozenset[Scope]
    quota: Quota
    created_at_s: float
    expires_at_s: float | None = None
    revoked_at_s: float | None = None
    last_used_at_s: float | None = None
    usage: Usage = Usage()

    def is_expired(self, now_s: float) -> bool:
        """Whether its time is over."""
        return self.expires_at_s is not None and self.expires_at_s <= now_s


def new_secret() -> str:
    """A secret that nobody can guess, made of characters that any header and shell carries unquoted."""
    return _MARK + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> str:
    """What is kept of a secret: SHA-256 in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_key_id() -> str:
    """An id for a key; it is no secret."""
    return f"key-{uuid.uuid4().hex[:12]}"


class ApiKeyStore:
    """Keys by id. Every method may be called from any thread, is one transaction, and raises StoreError when the
    database cannot do it; nothing is changed then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def add(self, key: ApiKey, digest: str) -> None:
        """Keep a new key."""
        row = {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "digest": digest,
            "scopes": ",".join(sorted(key.scopes)),
            "created_at_s": key.created_at_s,
            "expires_at_s": key.expires_at_s,
            **asdict(key.quota),
        }
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).values(row))

    def read(self) -> dict[str, ApiKey]:
        """All keys by the digest of their secret, revoked ones too, newest first."""
        query = select(_TABLE).order_by(_TABLE.c.created_at_s.desc(), _TABLE.c.id)
        with self._database.begin() as connection:
            rows = connection.execute(query).mappings().all()
        return {row["digest"]: _key(row) for row in rows}

    def revoke(self, key_id: str, now_s: float) -> bool:
        """End a key; False when none by that id is in force."""
        return self._change(key_id, {"revoked_at_s": now_s})

    def set_quota(self, key_id: str, quota: Quota) -> bool:
        """Change what a key may use; False when none by that id is in force."""
        return self._change(key_id, asdict(quota))

    def add_uses(self, uses: Mapping[str, Use]) -> None:
        """Add to the usage of keys, by their id."""
        with self._database.begin() as connection:
            for key_id, use in uses.items():
                added = {name: _TABLE.c[name] + count for name, count in asdict(use.usage).items()}
                changes = {**added, "last_used_at_s": use.last_used_at_s}
                connection.execute(update(_TABLE).where(_TABLE.c.id == key_id).values(changes))

    def _change(self, key_id: str, values: Mapping[str, object]) -> bool:
        in_force = (_TABLE.c.id == key_id, _TABLE.c.revoked_at_s.is_(None))
        with self._database.begin() as connection:
            changed = connection.execute(update(_TABLE).where(*in_force).values(values))
        return changed.rowcount > 0


def _key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=_scopes(row["scopes"].split(",")),
        quota=Quota(row["requests_per_minute"], row["tokens_per_minute"], row["concurrent_requests"]),
        created_at_s=row["created_at_s"],
        expires_at_s=row["expires_at_s"],
        revoked_at_s=row["revoked_at_s"],
        last_used_at_s=row["last_used_at_s"],
        usage=Usage(row["num_requests"], row["num_rejected"], row["num_prompt_tokens"], row["num_output_tokens"]),
    )


def _scopes(names: Iterable[str]) -> frozenset[Scope]:
    """The scopes known here; one that another version of the console wrote opens nothing."""
    known = {scope.value for scope in Scope}
    return frozenset(Scope(name) for name in names if name in known)
