"""`/v1/files`: what batches read and write. A file is found only by the key that made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, Response

from engine.api.auth import InferenceCaller
from engine.api.document import UNKNOWN, Responses, errors
from engine.api.files_schema import UPLOAD_FORM, FileDeleted, FileList, FileObject
from engine.api.provider import ConsoleOfServer
from engine.api.upload import receive_form
from engine.batches import MAX_FILE_BYTES
from engine.errors import InvalidRequestError

router = APIRouter()

_PURPOSES = ("batch",)
_IN_USE = errors({409: "A batch reads it."})
_BYTES: Responses = {200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}}


@router.post("/files", response_model=FileObject, summary="Upload a file of rows", openapi_extra=UPLOAD_FORM)
async def upload_file(http: Request, caller: InferenceCaller, console: ConsoleOfServer) -> FileObject:
    """One JSON object a line: `custom_id`, `method`, `url` and `body`. It is read when a batch is made of it."""
    files = console.batches.files
    upload = await run_in_threadpool(console.batches.open_upload, caller.key_id)
    try:
        form = await receive_form(http, upload, MAX_FILE_BYTES)
        _check_fields(form.fields)
        stored = await run_in_threadpool(files.keep, upload, form.filename, form.fields["purpose"], caller.key_id)
    finally:
        await run_in_threadpool(_remove, upload)
    return FileObject.of(stored, files.expires_at_s(stored))


def _remove(upload: Path) -> None:
    """What was kept is not there any more."""
    upload.unlink(missing_ok=True)


def _check_fields(fields: Mapping[str, str]) -> None:
    unknown = next((name for name in fields if name != "purpose"), None)
    if unknown is not None:
        raise InvalidRequestError(f"{unknown[:80]} is not supported by this server: leave it out", unknown)
    if fields.get("purpose") not in _PURPOSES:
        raise InvalidRequestError(f"purpose is {fields.get('purpose')!r}; it must be 'batch'", "purpose")


@router.get("/files", responses=UNKNOWN, summary="The files of this key")
async def list_files(
    caller: InferenceCaller,
    console: ConsoleOfServer,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1_000,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> FileList:
    """Uploaded ones and outputs of batches."""
    newest_first = order == "desc"
    found = await run_in_threadpool(
        console.batches.files.list, caller.key_id, purpose, after, limit + 1, is_newest_first=newest_first
    )
    files = console.batches.files
    data = [FileObject.of(file, files.expires_at_s(file)) for file in found[:limit]]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return FileList(data=data, first_id=first, last_id=last, has_more=len(found) > limit)


@router.get("/files/{file_id}", responses=UNKNOWN, summary="What is known of a file")
async def get_file(file_id: str, caller: InferenceCaller, console: ConsoleOfServer) -> FileObject:
    """Its name, size and purpose."""
    files = console.batches.files
    file = await run_in_threadpool(files.get, file_id, caller.key_id)
    return FileObject.of(file, files.expires_at_s(file))


@router.get(
    "/files/{file_id}/content",
    responses=UNKNOWN | _BYTES,
    summary="The bytes of a file",
    response_class=FileResponse,
)
async def get_file_content(file_id: str, caller: InferenceCaller, console: ConsoleOfServer) -> Response:
    """As they were uploaded, or written by a batch."""
    files = console.batches.files
    file = await run_in_threadpool(files.get, file_id, caller.key_id)
    return FileResponse(files.path(file.id), media_type="application/octet-stream", filename=file.filename)


@router.delete("/files/{file_id}", responses=UNKNOWN | _IN_USE, summary="Remove a file")
async def delete_file(file_id: str, caller: InferenceCaller, console: ConsoleOfServer) -> FileDeleted:
    """Not while a batch reads it."""
    await run_in_threadpool(console.batches.delete_file, file_id, caller.key_id)
    return FileDeleted(id=file_id)
