"""Which stored records a question is about."""

from __future__ import annotations

from dataclasses import dataclass

from engine.latency.record import Status


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Records that fit every field that is not None. An empty tuple fits none.

    `since_s` (included) and `until_s` (excluded) are seconds since the epoch, compared with the time of
    receipt.
    """

    models: tuple[str, ...] | None = None
    statuses: tuple[Status, ...] | None = None
    since_s: float | None = None
    until_s: float | None = None
    source: str | None = None
    key_id: str | None = None


EVERYTHING = RecordFilter()


def where_clause(filter: RecordFilter) -> tuple[str, list[object]]:
    """The filter as SQL (` WHERE ...`, empty when everything fits) and the values of its placeholders."""
    conditions: list[str] = []
    parameters: list[object] = []
    statuses = None if filter.statuses is None else tuple(status.value for status in filter.statuses)
    for column, values in (("model", filter.models), ("status", statuses)):
        if values is not None:
            conditions.append(_one_of(column, len(values)))
            parameters.extend(values)
    for condition, value in (
        ("received_at_s >= ?", filter.since_s),
        ("received_at_s < ?", filter.until_s),
        ("source = ?", filter.source),
        ("key_id = ?", filter.key_id),
    ):
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    return (" WHERE " + " AND ".join(conditions) if conditions else ""), parameters


def _one_of(column: str, num_values: int) -> str:
    return f"{column} IN ({', '.join('?' * num_values)})" if num_values else "FALSE"
