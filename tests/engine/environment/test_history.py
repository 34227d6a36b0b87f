from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from engine.environment import history as history_module
from engine.environment.check import CheckStatus
from engine.environment.history import MAX_REPORTS, ReportHistory
from engine.environment.report import EnvironmentReport
from engine.errors import StoreError
from engine.state.database import FILE_NAME, Database, open_database, sqlite_url
from tests.engine.environment.builders import report_of, result


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / FILE_NAME


@pytest.fixture(params=["file", "memory"])
def database(request: pytest.FixtureRequest, path: Path) -> Iterator[Database]:
    with open_database(sqlite_url(path) if request.param == "file" else "sqlite://") as database:
        yield database


@pytest.fixture
def history(database: Database) -> ReportHistory:
    return ReportHistory(database)


def taken_at(seconds: float, status: CheckStatus = CheckStatus.PASS) -> EnvironmentReport:
    return report_of(result(status=status, facts={"free_bytes": 3, "name": "ä\n"}), taken_at_s=seconds)


def test_before_the_first_report_there_is_none(history: ReportHistory) -> None:
    assert history.latest() is None
    assert history.before(1e12) is None
    assert history.get("0" * 32) is None
    assert history.list() == ()


def test_a_report_comes_back_as_it_was(history: ReportHistory) -> None:
    report = taken_at(5.5, CheckStatus.WARN)
    assert history.get(history.keep(report)) == report
    assert history.latest() == report
    (summary,) = history.list()
    assert (summary.taken_at_s, summary.profile, summary.is_deep) == (5.5, "laptop", False)
    assert summary.verdict is CheckStatus.WARN
    assert history.get(summary.id) == report


def test_the_newest_comes_first_whatever_the_order_of_keeping(history: ReportHistory) -> None:
    for seconds in (20.0, 30.0, 10.0):
        history.keep(taken_at(seconds))
    assert [summary.taken_at_s for summary in history.list()] == [30.0, 20.0, 10.0]
    assert [summary.taken_at_s for summary in history.list(limit=2)] == [30.0, 20.0]
    assert history.latest() == taken_at(30.0)


def test_the_one_before(history: ReportHistory) -> None:
    for seconds in (10.0, 20.0, 30.0):
        history.keep(taken_at(seconds))
    assert history.before(30.0) == taken_at(20.0)
    assert history.before(20.5) == taken_at(20.0)
    assert history.before(10.0) is None


def test_the_oldest_beyond_the_bound_go(history: ReportHistory, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_REPORTS == 200
    monkeypatch.setattr(history_module, "MAX_REPORTS", 5)
    ids = [history.keep(taken_at(float(seconds))) for seconds in range(12)]
    assert [summary.taken_at_s for summary in history.list(limit=100)] == [11.0, 10.0, 9.0, 8.0, 7.0]
    assert history.get(ids[6]) is None
    assert history.get(ids[7]) == taken_at(7.0)


def test_two_hundred_are_kept(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        history = ReportHistory(database)
        for seconds in range(MAX_REPORTS + 3):
            history.keep(taken_at(float(seconds)))
        kept = history.list(limit=1_000)
    assert [kept[0].taken_at_s, kept[-1].taken_at_s, len(kept)] == [202.0, 3.0, 200]


def test_reports_outlive_the_process(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        name = ReportHistory(database).keep(taken_at(1.0))
    with open_database(sqlite_url(path)) as database:
        assert ReportHistory(database).get(name) == taken_at(1.0)


@pytest.mark.parametrize("payload", ["", "not json", "{}", "[]", '{"checks": [{"colour": 1}]}', '{"checks": 3}'])
def test_a_report_that_cannot_be_read_counts_as_none(
    history: ReportHistory, database: Database, payload: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = history.keep(taken_at(1.0))
    with database.begin() as connection:
        connection.execute(text("UPDATE environment_reports SET payload = :payload"), {"payload": payload})
    assert history.get(name) is None
    assert history.latest() is None
    assert history.before(2.0) is None
    assert len(history.list()) == 1
    assert "cannot be read" in caplog.text


def test_a_full_disk_is_explained_and_loses_nothing(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        history = ReportHistory(database)
        history.keep(taken_at(1.0))
        with database.begin() as connection:
            num_pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {num_pages}")
        large = report_of(result(observed="x" * 1_000_000), taken_at_s=2.0)
        with pytest.raises(StoreError, match=r"disk is full.*free space"):
            history.keep(large)
        assert history.latest() == taken_at(1.0)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write to read-only files")
def test_a_file_made_read_only_is_explained(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        history = ReportHistory(database)
        path.chmod(0o400)
        with pytest.raises(StoreError, match="make the file and its folder writable"):
            history.keep(taken_at(1.0))


def test_a_database_that_takes_no_writes_is_explained_and_still_read(path: Path) -> None:
    with open_database(sqlite_url(path)) as database:
        history = ReportHistory(database)
        history.keep(taken_at(1.0))
        with database.begin() as connection:
            connection.exec_driver_sql("PRAGMA query_only = ON")
        with pytest.raises(StoreError, match=r"readonly.*make the file and its folder writable"):
            history.keep(taken_at(2.0))
        assert history.latest() == taken_at(1.0)
