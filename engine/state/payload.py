"""A conversation as JSON and back, for the store's rows and for exported files."""

from __future__ import annotations

from pydantic import ConfigDict, RootModel, ValidationError
from pydantic_core import PydanticSerializationError

from engine.errors import StoreError
from engine.state.conversation import Conversation


class _Payload(RootModel[Conversation]):
    # JSON has no number for the log probability of an impossible token, so it is the string "-Infinity".
    model_config = ConfigDict(ser_json_inf_nan="strings")


def to_payload(conversation: Conversation, indent: int | None = None) -> str:
    """JSON that `from_payload` gives an equal conversation for. StoreError for text that is no Unicode."""
    try:
        return _Payload(conversation).model_dump_json(indent=indent)
    except PydanticSerializationError as error:
        raise StoreError(
            f"Conversation {conversation.id} cannot be kept: {error}; remove the broken characters"
        ) from error


def from_payload(payload: str) -> Conversation:
    """The conversation in `payload`. Unknown fields are ignored; StoreError names any other bad one."""
    try:
        return _Payload.model_validate_json(payload).root
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the text"
        raise StoreError(f"This is not a conversation that can be read: {field}: {first['msg']}") from error
