"""The store over real files: second processes, damaged files, a full disk, kill -9."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from engine.errors import StoreError
from engine.latency.filter import EVERYTHING, RecordFilter
from engine.latency.record import RequestRecord, Status
from engine.latency.schema import COLUMNS, TABLE
from engine.latency.store import FILE_NAME, RecordStore
from engine.latency.summary import Metric
from engine.latency.writer import WriterLimits
from tests.engine.latency.builders import CANCELLED_IN_QUEUE, PLAIN, REFUSED, make_records

ROOT = Path(__file__).parents[3]
BY_HAND = WriterLimits(interval_s=3_600.0, retry_s=3_600.0)

_HOLDER = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
_APPENDER = """
import sys, time
from dataclasses import replace
from pathlib import Path
from engine.latency.store import RecordStore
from tests.engine.latency.builders import PLAIN
store = RecordStore.open(Path(sys.argv[1]))
for index in range(100_000):
    store.append(replace(PLAIN, request_id=str(index)))
    print(index, time.time(), flush=True)
    time.sleep(0.005)
"""

Opener = Callable[..., RecordStore]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / FILE_NAME


@pytest.fixture
def open_store() -> Iterator[Opener]:
    """RecordStore.open whose stores are closed when the test ends."""
    stores: list[RecordStore] = []

    def open_one(path: Path | None, limits: WriterLimits = BY_HAND) -> RecordStore:
        stores.append(RecordStore.open(path, limits=limits))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of three megabytes."""
    mount = shutil.which("mount")
    if os.name != "posix" or os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine does not let tests mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def _spawn(code: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def _fill_up(ballast: Path) -> None:
    """Write to `ballast` until its disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4_096)


def _append(store: RecordStore, records: list[RequestRecord]) -> None:
    for record in records:
        store.append(record)
    store.flush()


def _assert_saving(store: RecordStore) -> None:
    assert store.error is None


def _fill(path: Path, num_records: int) -> None:
    store = RecordStore.open(path, limits=BY_HAND)
    _append(store, make_records(num_records))
    store.close()


def test_records_outlive_the_store(path: Path, open_store: Opener) -> None:
    _fill(path, 20)
    store = open_store(path)
    assert (store.path, store.warning, store.error) == (path, None, None)
    assert store.recent() == tuple(reversed(make_records(20)))


def test_close_writes_what_was_not_flushed(path: Path, open_store: Opener) -> None:
    store = open_store(path)
    store.append(PLAIN)
    store.close()
    assert open_store(path).recent() == (PLAIN,)


def test_thread_writes_by_itself(path: Path, open_store: Opener) -> None:
    store = open_store(path, WriterLimits(interval_s=0.01))
    store.append(CANCELLED_IN_QUEUE)
    deadline_s = time.monotonic() + 5.0
    while not store.recent():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert store.recent() == (CANCELLED_IN_QUEUE,)


def test_memory_stores_are_apart(open_store: Opener) -> None:
    first, second = open_store(None), open_store(None)
    _append(first, [PLAIN])
    assert (first.path, first.warning, second.recent()) == (None, None, ())


def test_file_in_use_is_left_to_its_owner(path: Path, open_store: Opener) -> None:
    path.parent.mkdir()
    with _spawn(_HOLDER, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = path.read_bytes()
        store = open_store(path)
        assert store.path is None
        assert store.warning == (
            f"Request history is kept in memory only and starts empty, because {path} is in use by another process;"
            " stop that one, or give this console another CONSOLE_HOME, and start again."
        )
        _append(store, [PLAIN])
        assert store.recent() == (PLAIN,)
        assert path.read_bytes() == before
        holder.communicate()


@pytest.mark.parametrize("content", [b"", b"garbage" * 5_000], ids=["empty", "garbage"])
def test_damaged_file_is_kept_as_it_is(path: Path, open_store: Opener, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    store = open_store(path)
    assert store.warning is not None
    assert f"{path} is damaged or not a DuckDB file; move it away" in store.warning
    _append(store, [PLAIN])
    assert store.recent() == (PLAIN,)
    store.close()
    assert path.read_bytes() == content


def test_file_damaged_inside_is_kept_as_it_is(path: Path, open_store: Opener) -> None:
    _fill(path, 1_000)
    damaged = bytearray(path.read_bytes())
    damaged[12_288::64] = b"\xff" * len(damaged[12_288::64])
    path.write_bytes(damaged)
    store = open_store(path)
    assert store.warning is not None
    assert "damaged" in store.warning
    assert path.read_bytes() == damaged


def test_file_of_another_make_is_not_used(path: Path, open_store: Opener) -> None:
    _fill(path, 1)
    store = open_store(path)
    store.rows("DROP VIEW latencies")
    store.rows(f"ALTER TABLE {TABLE} DROP COLUMN finish_reason")
    store.close()
    reopened = open_store(path)
    assert reopened.path is None
    assert reopened.warning is not None
    assert "finish_reason" in reopened.warning


# The statements of the version that knew no API keys.
_FIRST_SCHEMA = """
CREATE TABLE requests (
    request_id VARCHAR NOT NULL, model VARCHAR NOT NULL, source VARCHAR NOT NULL, received_at_s DOUBLE NOT NULL,
    scheduled_s DOUBLE, first_token_s DOUBLE, last_token_s DOUBLE, finished_s DOUBLE NOT NULL,
    num_prompt_tokens BIGINT NOT NULL, num_output_tokens BIGINT NOT NULL, finish_reason VARCHAR NOT NULL,
    status VARCHAR NOT NULL, error VARCHAR
);
CREATE VIEW latencies AS SELECT request_id, model, source, received_at_s, scheduled_s, first_token_s, last_token_s,
    finished_s, num_prompt_tokens, num_output_tokens, finish_reason, status, error, scheduled_s AS queue_s,
    first_token_s - scheduled_s AS prefill_s, first_token_s AS ttft_s,
    CASE WHEN num_output_tokens > 1 THEN (last_token_s - first_token_s) / (num_output_tokens - 1) END AS tpot_s,
    finished_s AS e2e_s FROM requests;
"""


def test_file_of_the_first_version_gets_the_new_columns_in_place(path: Path, open_store: Opener) -> None:
    path.parent.mkdir()
    old = make_records(20)
    with duckdb.connect(str(path)) as first_version:
        first_version.execute(_FIRST_SCHEMA)
        values = [[getattr(record, name) for name in COLUMNS if name != "key_id"] for record in old]
        first_version.executemany(f"INSERT INTO {TABLE} VALUES ({', '.join('?' * 13)})", values)
    store = open_store(path)
    assert (store.path, store.warning) == (path, None)
    _append(store, [REFUSED])
    assert store.recent(RecordFilter(key_id="key-1")) == (REFUSED,)
    assert set(store.recent()) == {*old, REFUSED}
    assert store.summarize().num_by_status[Status.REJECTED] == 1
    store.close()
    again = open_store(path)
    assert (again.warning, len(again.recent())) == (None, 21)


def test_what_was_appended_is_counted_at_once(open_store: Opener) -> None:
    store = open_store(None)
    store.append(PLAIN)
    assert store.totals.read()["smol"].num_by_finish == {"stop": 1}


def test_folder_that_cannot_be_made_is_explained(tmp_path: Path, open_store: Opener) -> None:
    (tmp_path / "file").write_text("")
    store = open_store(tmp_path / "file" / FILE_NAME)
    assert store.warning is not None
    assert "cannot be opened" in store.warning
    assert "CONSOLE_HOME" in store.warning


def test_full_disk_keeps_records_until_there_is_space(small_disk: Path, open_store: Opener) -> None:
    store = open_store(small_disk / FILE_NAME)
    records = make_records(3_000)
    _append(store, records[:1_000])
    ballast = small_disk / "ballast"
    _fill_up(ballast)
    _append(store, records[1_000:])
    assert store.error is not None
    assert "No space left on device" in store.error
    assert "2000 records wait in memory" in store.error
    assert store.summarize().num_records == 1_000
    ballast.unlink()
    _append(store, [])
    _assert_saving(store)
    assert store.num_dropped == 0
    assert store.recent(limit=3_000) == tuple(reversed(records))


def test_disk_full_at_the_start_leaves_nothing_damaged(small_disk: Path, open_store: Opener) -> None:
    ballast = small_disk / "ballast"
    _fill_up(ballast)
    store = open_store(small_disk / FILE_NAME)
    assert store.warning is not None
    assert "No space left on device" in store.warning
    ballast.unlink()
    assert open_store(small_disk / FILE_NAME).warning is None


def test_record_with_values_refused_does_not_hold_up_the_others(path: Path, open_store: Opener) -> None:
    store = open_store(path)
    bad = [replace(PLAIN, error="\ud800"), replace(PLAIN, finished_s=cast(Any, "soon"))]
    good = make_records(10)
    _append(store, [*good[:5], *bad, *good[5:]])
    assert (store.error, store.num_dropped) == (None, 2)
    assert store.recent() == tuple(reversed(good))


def test_kill_loses_at_most_the_last_second(path: Path, open_store: Opener) -> None:
    with _spawn(_APPENDER, path) as appender:
        assert appender.stdout is not None
        appended = [appender.stdout.readline().split()]
        while float(appended[-1][1]) - float(appended[0][1]) < 1.5:
            appended.append(appender.stdout.readline().split())
        appender.send_signal(signal.SIGKILL)
        killed_at_s = time.time()
        appender.communicate()
    store = open_store(path)
    assert store.warning is None
    found = {record.request_id for record in store.recent(limit=100_000)}
    due = {index for index, at_s in appended if float(at_s) < killed_at_s - 1.0}
    assert due
    assert due <= found


def test_reads_and_writes_from_many_threads(path: Path, open_store: Opener) -> None:
    store = open_store(path, WriterLimits(interval_s=0.005, max_batch=100))
    records = make_records(1_000)
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(15):
                assert store.summarize().num_by_status[Status.ERRORED] == 0
                store.series()
                store.distribution(EVERYTHING, Metric.TTFT)
        except BaseException as error:
            failures.append(error)

    def write(start: int) -> None:
        for record in records[start::4]:
            store.append(record)

    threads = [threading.Thread(target=read) for _ in range(4)]
    threads += [threading.Thread(target=write, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    assert failures == []
    assert store.summarize().num_records == 1_000


def test_closing_under_readers_gives_them_a_clear_error(path: Path, open_store: Opener) -> None:
    _fill(path, 1_000)
    store = open_store(path)
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                store.summarize()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    store.close()
    for thread in threads:
        thread.join(timeout=10.0)
    assert [type(error) for error in errors] == [StoreError] * 3


def test_closed_store_answers_with_a_clear_error(open_store: Opener) -> None:
    store = open_store(None)
    store.close()
    store.append(PLAIN)
    assert store.num_dropped == 1
    with pytest.raises(StoreError, match="is closed"):
        store.summarize()
    with pytest.raises(StoreError, match="is closed"):
        store.distribution(EVERYTHING, Metric.TTFT)
