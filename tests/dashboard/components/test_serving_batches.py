from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.components.serving_batches import error_lines, origin_text, progress_text, took_text
from engine.batches import Batch, Batches, BatchStatus, Counts, LineError, Row, RowAnswer
from engine.clock import SystemClock
from engine.state import Database, open_database
from tests.fakes import wait_until

_URL = "/v1/chat/completions"
_BATCH = Batch("batch_1", None, _URL, "file-in", "file-out", "file-err", 1_000.0, 87_400.0)


@pytest.fixture
def database() -> Iterator[Database]:
    with open_database("sqlite://") as one:
        yield one


@pytest.fixture
def batches(database: Database, tmp_path: Path) -> Iterator[Batches]:
    one = Batches(tmp_path, database, 16, SystemClock())
    yield one
    one.close()


def _add(batches: Batches, *lines: str) -> Batch:
    upload = batches.open_upload(None)
    upload.write_text("".join(f"{line}\n" for line in lines))
    return batches.create(None, batches.files.keep(upload, "rows", "batch", None).id, _URL)


def _line(name: str) -> str:
    return json.dumps({"custom_id": name, "method": "POST", "url": _URL, "body": {"model": "m"}})


async def _answer(_batch: Batch, _row: Row) -> RowAnswer:
    return RowAnswer(200, "req", {})


def _script(batches: object) -> None:
    from dashboard.components.serving_batches import show_batches
    from engine.clock import SystemClock

    show_batches(batches, SystemClock())  # type: ignore[arg-type]  # the annotation is run without the imports above


def _draw(batches: Batches) -> AppTest:
    page = AppTest.from_function(_script, default_timeout=30, kwargs={"batches": batches}).run()
    assert not page.exception
    return page


def test_rows_in_words() -> None:
    counts = Counts(1_200, 900, 12)
    moving = replace(_BATCH, counts=counts)
    assert progress_text(moving) == "912 of 1,200 rows, 12 of them with an error"
    assert progress_text(_BATCH) == "No row was run."
    assert origin_text(_BATCH, 1_065.0) == "/v1/chat/completions · begun 1 min 5 s ago"


def test_how_long_the_rows_took() -> None:
    running = _BATCH.to(BatchStatus.IN_PROGRESS, 1_010.0)
    assert took_text(running) is None
    assert took_text(running.to(BatchStatus.COMPLETED, 1_012.5)) == "2.50 s"
    assert took_text(_BATCH.to(BatchStatus.FAILED, 1_012.5)) is None


def test_only_some_errors_are_listed() -> None:
    errors = tuple(LineError("bad", f"line {number}: *bad*", number) for number in range(1, 8))
    lines = error_lines(replace(_BATCH, errors=errors)).splitlines()
    assert len(lines) == 6
    assert lines[0] == r"- line 1\: \*bad\*"
    assert lines[-1] == "- and 2 more"


def test_nothing_to_show(batches: Batches) -> None:
    assert "No batch was sent yet" in _draw(batches).info[0].value


def test_one_under_way_can_be_cancelled(batches: Batches) -> None:
    batch = _add(batches, _line("a"))
    page = _draw(batches)
    page.button(key=f"batch-cancel-{batch.id}").click().run()
    assert not page.exception
    assert batches.get(batch.id, None).status is BatchStatus.CANCELLING


def test_one_that_ended_can_be_downloaded_and_a_bad_file_says_why(batches: Batches) -> None:
    batches.resume(_answer, lambda _: None)
    good, bad = _add(batches, _line("a")), _add(batches, "{")
    wait_until(lambda: not any(batch.is_open for batch in batches.latest()))
    page = _draw(batches)
    assert [error.value for error in page.error] == [f"Nothing was run:\n\n{error_lines(batches.get(bad.id, None))}"]
    assert any("1 of 1 row" in text.value for text in page.markdown)
    assert [button.label for button in page.get("download_button")] == ["Answers"]
    batches.delete_file(good.output_file_id, None)
    assert any("were deleted" in caption.value for caption in _draw(batches).caption)
