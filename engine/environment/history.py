"""Past reports in the state database, one row each: what a list shows as columns, the rest as JSON."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass

from sqlalchemy import Boolean, Column, Double, MetaData, String, Table, Text, delete, insert, select

from engine.environment.check import CheckStatus
from engine.environment.export import from_json, to_json
from engine.environment.report import EnvironmentReport
from engine.state.database import Database

MAX_REPORTS = 200

logger = logging.getLogger(__name__)

_METADATA = MetaData()
_TABLE = Table(
    "environment_reports",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("taken_at_s", Double, nullable=False, index=True),
    Column("profile", Text, nullable=False),
    Column("is_deep", Boolean, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("payload", Text, nullable=False),
)
_NEWEST_FIRST = (_TABLE.c.taken_at_s.desc(), _TABLE.c.id)


@dataclass(frozen=True, slots=True)
class ReportSummary:
    """A report as a list shows it; `taken_at_s` counts seconds since the epoch."""

    id: str
    taken_at_s: float
    profile: str
    is_deep: bool
    verdict: CheckStatus


class ReportHistory:
    """The last 200 reports. Every method may be called from any thread, is one transaction, and raises StoreError
    when the database cannot do it. A report that another version of the console wrote and this one cannot read counts
    as none."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def keep(self, report: EnvironmentReport) -> str:
        """Store a report and give its id; the oldest ones beyond the bound go."""
        row = {
            "id": uuid.uuid4().hex,
            "taken_at_s": report.taken_at_s,
            "profile": report.profile,
            "is_deep": report.is_deep,
            "verdict": report.verdict.value,
            "payload": to_json(report),
        }
        surplus = select(_TABLE.c.id).order_by(*_NEWEST_FIRST).offset(MAX_REPORTS)
        with self._database.begin() as connection:
            connection.execute(insert(_TABLE).values(row))
            old = list(connection.execute(surplus).scalars())
            connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(old)))
        return str(row["id"])

    def get(self, report_id: str) -> EnvironmentReport | None:
        """The report by that id; None when there is none."""
        return self._first(select(_TABLE.c.payload).where(_TABLE.c.id == report_id))

    def latest(self) -> EnvironmentReport | None:
        """The newest report; None before the first."""
        return self._first(select(_TABLE.c.payload).order_by(*_NEWEST_FIRST).limit(1))

    def before(self, taken_at_s: float) -> EnvironmentReport | None:
        """The newest report that is older than that moment; None when there is none."""
        older = select(_TABLE.c.payload).where(_TABLE.c.taken_at_s < taken_at_s)
        return self._first(older.order_by(*_NEWEST_FIRST).limit(1))

    def list(self, limit: int = 50) -> tuple[ReportSummary, ...]:
        """The newest reports, newest first, without their checks."""
        columns = (_TABLE.c.id, _TABLE.c.taken_at_s, _TABLE.c.profile, _TABLE.c.is_deep, _TABLE.c.verdict)
        with self._database.begin() as connection:
            rows = connection.execute(select(*columns).order_by(*_NEWEST_FIRST).limit(limit)).all()
        return tuple(ReportSummary(*row[:-1], CheckStatus(row[-1])) for row in rows)

    def _first(self, query: object) -> EnvironmentReport | None:
        with self._database.begin() as connection:
            payload = connection.execute(query).scalar_one_or_none()  # type: ignore[call-overload]
        try:
            return None if payload is None else from_json(payload)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            logger.warning("a kept environment report cannot be read, and counts as none: %r", error)
            return None
