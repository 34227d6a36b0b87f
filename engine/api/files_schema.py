"""The bodies of `/v1/files`, in OpenAI's terms."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from engine.batches import MAX_FILE_BYTES, StoredFile


class FileObject(BaseModel):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="when it is removed, or as soon afterwards as no open batch reads it")
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile, expires_at_s: float | None) -> FileObject:
        """As the API shows it."""
        return cls(
            id=file.id,
            bytes=file.size_bytes,
            created_at=int(file.created_at_s),
            expires_at=None if expires_at_s is None else int(expires_at_s),
            filename=file.filename,
            purpose="batch" if file.purpose == "batch" else "batch_output",
        )


class FileList(BaseModel):
    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


# The form is read as it comes, so FastAPI cannot tell of it.
UPLOAD_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": f"JSON lines, {MAX_FILE_BYTES:,} bytes at most",
                        },
                        "purpose": {"type": "string", "enum": ["batch"]},
                    },
                }
            }
        },
    }
}
