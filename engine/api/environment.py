"""`GET /v1/environment`: the last report of this machine."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends

from engine.api.auth import require_metrics
from engine.api.document import errors
from engine.api.provider import ConsoleOfServer
from engine.environment.export import to_dict
from engine.environment.runs import EnvironmentRuns
from engine.errors import ReportNotFoundError

router = APIRouter(dependencies=[Depends(require_metrics)])


@router.get("/environment", responses=errors({404: "None was taken yet."}), summary="The last environment report")
async def get_environment(console: ConsoleOfServer) -> dict[str, Any]:
    """The report that the environment page shows, as `python -m engine.environment --json` prints it.

    Raises:
        ReportNotFoundError: none was taken yet.
    """
    report = console.environment.latest()
    if report is None:
        raise ReportNotFoundError(_why_none(console.environment))
    return to_dict(report)


def _why_none(runs: EnvironmentRuns) -> str:
    if runs.progress() is not None:
        return "the first report is being taken: ask again in some seconds"
    return f"no report was taken yet: {runs.error or 'open the environment page, which takes one'}"
