"""Past experiments in the state database, one row each: what a list shows as columns, the rest as JSON."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import ConfigDict, RootModel, ValidationError
from sqlalchemy import Column, Double, Integer, MetaData, String, Table, Text, delete, insert, select

from engine.lab.experiment import Experiment, ExperimentStatus
from engine.state.database import Database

MAX_EXPERIMENTS = 200

logger = logging.getLogger(__name__)

_METADATA = MetaData()
_TABLE = Table(
    "lab_experiments",
    _METADATA,
    Column("id", String(32), primary_key=True),
    Column("started_at_s", Double, nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("num_variants", Integer, nullable=False),
    Column("payload", Text, nullable=False),
)
_NEWEST_FIRST = (_TABLE.c.started_at_s.desc(), _TABLE.c.id)


class _Payload(RootModel[Experiment]):
    # JSON has no number for an infinite perplexity, so it is the string "Infinity".
    model_config = ConfigDict(ser_json_inf_nan="strings")


def to_json(experiment: Experiment, indent: int | None = None) -> str:
    """JSON that `from_json` gives an equal experiment for."""
    return _Payload(experiment).model_dump_json(indent=indent)


def from_json(payload: str) -> Experiment:
    """The experiment in `payload`. ValueError when it is none."""
    return _Payload.model_validate_json(payload).root


@dataclass(frozen=True, slots=True)
class ExperimentSummary:
    """An experiment as a list shows it; `started_at_s` counts seconds since the epoch."""

    id: str
    started_at_s: float
    source: str
    status: ExperimentStatus
    num_variants: int


class ExperimentStore:
    """The last 200 experiments. Every method may be called from any thread, is one transaction, and raises StoreError
    when the database cannot do it. One that another version of the console wrote and this one cannot read counts as
    none."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create_tables(_METADATA)

    def keep(self, experiment: Experiment) -> None:
        """Store it in place of what was there of it; the oldest ones beyond the bound go."""
        row = {
            "id": experiment.id,
            "started_at_s": experiment.started_at_s,
            "source": experiment.plan.source,
            "status": experiment.status.value,
            "num_variants": len(experiment.plan.all_variants()),
            "payload": to_json(experiment),
        }
        surplus = select(_TABLE.c.id).order_by(*_NEWEST_FIRST).offset(MAX_EXPERIMENTS)
        with self._database.begin() as connection:
            connection.execute(delete(_TABLE).where(_TABLE.c.id == experiment.id))
            connection.execute(insert(_TABLE).values(row))
            old = list(connection.execute(surplus).scalars())
            connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(old)))

    def get(self, experiment_id: str) -> Experiment | None:
        """The experiment by that id; None when there is none."""
        return self._first(select(_TABLE.c.payload).where(_TABLE.c.id == experiment_id))

    def latest(self) -> Experiment | None:
        """The newest experiment; None before the first."""
        return self._first(select(_TABLE.c.payload).order_by(*_NEWEST_FIRST).limit(1))

    def list(self, limit: int = 50) -> tuple[ExperimentSummary, ...]:
        """The newest experiments, newest first, without their results."""
        columns = (_TABLE.c.id, _TABLE.c.started_at_s, _TABLE.c.source, _TABLE.c.status, _TABLE.c.num_variants)
        with self._database.begin() as connection:
            rows = connection.execute(select(*columns).order_by(*_NEWEST_FIRST).limit(limit)).all()
        return tuple(ExperimentSummary(row[0], row[1], row[2], ExperimentStatus(row[3]), row[4]) for row in rows)

    def _first(self, query: object) -> Experiment | None:
        with self._database.begin() as connection:
            payload = connection.execute(query).scalar_one_or_none()  # type: ignore[call-overload]
        try:
            return None if payload is None else from_json(payload)
        except ValidationError as error:
            logger.warning("a kept experiment cannot be read, and counts as none: %s", error)
            return None
