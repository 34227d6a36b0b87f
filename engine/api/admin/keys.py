"""API keys: list, make, bound and revoke."""

from __future__ import annotations

from fastapi import APIRouter, Response

from engine.api.admin.schemas import KeyAnswer, KeyBody, Listing, NewKeyAnswer, QuotaBody
from engine.api.document import errors
from engine.api.provider import ConsoleOfServer

router = APIRouter(prefix="/keys", tags=["keys"])
_UNKNOWN = errors({404: "No key made here and in force has that id."})


@router.get("", summary="All keys made here")
def list_keys(console: ConsoleOfServer) -> Listing[KeyAnswer]:
    """Newest first, revoked ones too, without their secrets. Those of CONSOLE_API_KEYS are not among them."""
    return Listing[KeyAnswer](data=[KeyAnswer.of(key) for key in console.keys.list()])


@router.post("", status_code=201, summary="Make a key")
def create_key(body: KeyBody, console: ConsoleOfServer, response: Response) -> NewKeyAnswer:
    """Its secret is in this answer and can never be read again."""
    expires_at_s = None if body.expires_in_s is None else console.clock.wall() + body.expires_in_s
    key, secret = console.keys.create(body.name, body.scopes, body.quota.to_quota(), expires_at_s)
    response.headers["cache-control"] = "no-store"
    return NewKeyAnswer(key=KeyAnswer.of(key), secret=secret)


@router.put("/{key_id}/quota", status_code=204, responses=_UNKNOWN, summary="Change what a key may use")
def set_quota(key_id: str, body: QuotaBody, console: ConsoleOfServer) -> None:
    """From its next request on."""
    console.keys.set_quota(key_id, body.to_quota())


@router.delete("/{key_id}", status_code=204, responses=_UNKNOWN, summary="Revoke a key")
def revoke_key(key_id: str, console: ConsoleOfServer) -> None:
    """The next request with it is refused; those that are running end as they would have."""
    console.keys.revoke(key_id)
