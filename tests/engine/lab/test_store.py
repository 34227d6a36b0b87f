"""Experiments in the state database."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from engine.lab import Estimate, ExperimentStatus, ExperimentStore, from_json, to_json
from engine.lab.store import MAX_EXPERIMENTS
from engine.state import Database, open_database, sqlite_url
from tests.engine.lab.builders import ORIGINAL, experiment


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(sqlite_url(tmp_path / "state.sqlite")) as opened:
        yield opened


def test_what_is_kept_comes_back_equal(database: Database) -> None:
    store = ExperimentStore(database)
    store.keep(experiment())
    assert ExperimentStore(database).get("one") == experiment()
    assert store.get("two") is None


def test_keeping_again_replaces(database: Database) -> None:
    store = ExperimentStore(database)
    store.keep(replace(experiment(), status=ExperimentStatus.INTERRUPTED, results=()))
    store.keep(experiment())
    assert [summary.status for summary in store.list()] == [ExperimentStatus.DONE]


def test_list_is_newest_first_and_bounded(database: Database) -> None:
    store = ExperimentStore(database)
    for index in range(MAX_EXPERIMENTS + 2):
        store.keep(experiment(f"run-{index}", float(index)))
    listed = store.list(limit=1_000)
    assert [summary.id for summary in listed[:2]] == ["run-201", "run-200"]
    assert len(listed) == MAX_EXPERIMENTS
    assert (listed[0].source, listed[0].num_variants) == ("sample", 3)
    newest = store.latest()
    assert newest is not None
    assert newest.id == "run-201"


def test_an_infinite_perplexity_survives(database: Database) -> None:
    quality = ORIGINAL.quality
    assert quality is not None
    infinite = replace(ORIGINAL, quality=replace(quality, perplexity=Estimate(math.inf)))
    changed = replace(experiment(), results=(infinite,))
    assert from_json(to_json(changed)) == changed


def test_one_that_cannot_be_read_counts_as_none(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    store = ExperimentStore(database)
    store.keep(experiment())
    with database.begin() as connection:
        connection.execute(text("UPDATE lab_experiments SET payload = '{}'"))
    assert store.get("one") is None
    assert "cannot be read" in caplog.text
