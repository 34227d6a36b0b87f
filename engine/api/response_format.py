"""`response_format` as OpenAI's chat completions have it: text, a JSON object, or JSON by a schema."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from engine.api.schemas import Body, JsonObject
from engine.errors import InvalidRequestError
from engine.inference.tools import JsonSchema


class JsonSchemaFormat(Body):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="accepted; it has no effect on the answer")
    description: str | None = Field(None, description="accepted; it has no effect on the answer")
    schema_: JsonObject | None = Field(None, alias="schema", description="left out: any JSON object")
    strict: bool | None = Field(
        None, description="false: keywords of the schema that cannot be enforced are passed over, not refused"
    )


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = Field(None, description="with type json_schema only")

    def to_constraint(self) -> JsonSchema | None:
        """What the answer has to be valid against; None for free text.

        Raises:
            InvalidRequestError: the schema is missing, or does not belong to the type.
        """
        if (self.json_schema is not None) != (self.type == "json_schema"):
            verb = "needs" if self.type == "json_schema" else "does not take"
            raise InvalidRequestError(
                f"response_format of type {self.type} {verb} json_schema: send both or none", "response_format"
            )
        if self.type == "text":
            return None
        if self.json_schema is None or self.json_schema.schema_ is None:
            return JsonSchema({"type": "object"})
        return JsonSchema(self.json_schema.schema_, self.json_schema.strict is not False)
