from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batches import runner
from engine.batches.batch import Batch, Counts
from engine.batches.ledger import Ledger
from engine.batches.rows import Row, RowReader, index_rows
from engine.batches.runner import Answer, BatchRun, Ending, RowAnswer, expired_lines, is_worth_waiting, pause_s

_URL = "/v1/chat/completions"
_BATCH = Batch("batch_1", None, _URL, "file-in", "file-out", "file-err", 0.0, 86_400.0)
_OK = RowAnswer(200, "req", {"ok": True})
_BUSY = RowAnswer(429, "req", {"error": {"message": "wait", "code": "queue_full"}}, "queue_full", 0.0)


def _write_rows(folder: Path, num_rows: int) -> Path:
    file = folder / "in"
    rows = ({"custom_id": str(n), "method": "POST", "url": _URL, "body": {"model": "m"}} for n in range(num_rows))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


async def _work_off(
    folder: Path, answer: Answer, num_workers: int = 4, remaining_s: float = 30.0, stop_after_s: float | None = None
) -> tuple[Ending, Counts]:
    file = folder / "in"
    with RowReader(file, _URL) as reader, Ledger(folder / "out", folder / "err") as ledger:
        run = BatchRun(_BATCH, answer, asyncio.Semaphore(num_workers), num_workers)
        if stop_after_s is not None:
            asyncio.get_running_loop().call_later(stop_after_s, run.stop)
        ending = await run.work_off(index_rows(file, _URL).places, reader, ledger, remaining_s)
        return ending, run.counts()


def _ids(folder: Path) -> Counter[str]:
    lines = [line for name in ("out", "err") for line in (folder / name).read_text().splitlines()]
    return Counter(json.loads(line)["custom_id"] for line in lines)


def _told(answer: RowAnswer) -> Answer:
    async def give(_batch: Batch, _row: Row) -> RowAnswer:
        await asyncio.sleep(0)
        return answer

    return give


def test_every_row_is_written_where_it_belongs(tmp_path: Path) -> None:
    _write_rows(tmp_path, 10)

    async def answer(_batch: Batch, row: Row) -> RowAnswer:
        return _OK if int(row.custom_id) % 2 else RowAnswer(400, "req", {"error": {"code": "bad"}}, "bad")

    assert asyncio.run(_work_off(tmp_path, answer)) == (Ending.DONE, Counts(10, 5, 5))
    errors = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert {line["custom_id"] for line in errors} == {"0", "2", "4", "6", "8"}
    assert errors[0]["response"] == {"status_code": 400, "request_id": "req", "body": {"error": {"code": "bad"}}}


def test_no_more_rows_are_in_flight_than_there_are_slots(tmp_path: Path) -> None:
    _write_rows(tmp_path, 30)
    in_flight = most = 0

    async def answer(_batch: Batch, _row: Row) -> RowAnswer:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.001)
        in_flight -= 1
        return _OK

    asyncio.run(_work_off(tmp_path, answer, num_workers=3))
    assert most == 3


def test_a_bad_moment_is_waited_for(tmp_path: Path) -> None:
    _write_rows(tmp_path, 5)
    tries: Counter[str] = Counter()

    async def answer(_batch: Batch, row: Row) -> RowAnswer:
        tries[row.custom_id] += 1
        return _OK if tries[row.custom_id] == 3 else _BUSY

    assert asyncio.run(_work_off(tmp_path, answer)) == (Ending.DONE, Counts(5, 5, 0))
    assert set(tries.values()) == {3}


@pytest.mark.parametrize(
    ("answer", "num_tries", "is_worth"),
    [
        (_BUSY, 1_000, True),
        (RowAnswer(503, "", {}), 1_000, True),
        (RowAnswer(404, "", {}, "model_not_found"), 1_000, True),
        (RowAnswer(500, "", {}, "worker_died"), 2, True),
        (RowAnswer(500, "", {}, "worker_died"), 3, False),
        (RowAnswer(500, "", {}, "internal_error"), 1, False),
        (RowAnswer(504, "", {}, "deadline_exceeded"), 1, False),
        (RowAnswer(401, "", {}, "invalid_api_key"), 1, False),
        (_OK, 1, False),
    ],
)
def test_what_is_worth_waiting_for(answer: RowAnswer, num_tries: int, is_worth: bool) -> None:
    assert is_worth_waiting(answer, num_tries) is is_worth


def test_pauses() -> None:
    assert pause_s(RowAnswer(429, "", {}, retry_after_s=7.0), 1) == 7.0
    assert pause_s(RowAnswer(429, "", {}, retry_after_s=3_600.0), 1) == 30.0
    silent = RowAnswer(503, "", {})
    assert [pause_s(silent, tries) for tries in (1, 2, 3, 100, 10_000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_cancelling_ends_what_is_in_flight(tmp_path: Path) -> None:
    _write_rows(tmp_path, 10)
    ended: list[str] = []

    async def answer(_batch: Batch, row: Row) -> RowAnswer:
        if int(row.custom_id) < 4:
            return _OK
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            ended.append(row.custom_id)
            raise
        return _OK

    assert asyncio.run(_work_off(tmp_path, answer, stop_after_s=0.05)) == (Ending.CANCELLED, Counts(10, 4, 0))
    assert len(ended) == 4
    assert _ids(tmp_path) == dict.fromkeys("0123", 1)


def test_a_batch_that_is_late_expires(tmp_path: Path) -> None:
    file = _write_rows(tmp_path, 3)

    async def answer(_batch: Batch, row: Row) -> RowAnswer:
        await asyncio.sleep(0 if row.custom_id == "0" else 3_600)
        return _OK

    assert asyncio.run(_work_off(tmp_path, answer, remaining_s=0.05)) == (Ending.EXPIRED, Counts(3, 1, 0))
    assert asyncio.run(_work_off(tmp_path, answer, remaining_s=-1.0)) == (Ending.EXPIRED, Counts(3, 1, 0))
    with Ledger(tmp_path / "out", tmp_path / "err") as ledger:
        lines = list(expired_lines(_BATCH, index_rows(file, _URL).places, ledger))
    assert [(line["custom_id"], line["response"], line["error"]["code"]) for line in lines] == [
        ("1", None, "batch_expired"),
        ("2", None, "batch_expired"),
    ]


def test_what_cannot_be_written_stops_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_rows(tmp_path, 3)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Ledger, "add", fail)
    with pytest.raises(OSError, match="No space"):
        asyncio.run(_work_off(tmp_path, _told(_OK)))


def test_answers_are_synced_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_rows(tmp_path, 1)
    monkeypatch.setattr(runner, "SYNC_S", 0.001)
    synced: list[bool] = []
    monkeypatch.setattr(Ledger, "sync", lambda _: synced.append(True))

    async def answer(_batch: Batch, _row: Row) -> RowAnswer:
        while not synced:
            await asyncio.sleep(0.001)
        return _OK

    assert asyncio.run(asyncio.wait_for(_work_off(tmp_path, answer), 30))[0] is Ending.DONE


@settings(max_examples=30)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 300)), max_size=4),
    st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
def test_any_order_and_any_crash_leaves_each_row_once(
    num_rows: int, crashes: list[tuple[int, int]], delays: list[int]
) -> None:
    """A crash comes after some answers and takes the last bytes that were written; rows end in the order of `delays`,
    each after a try in vain."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_rows(folder, num_rows)
        for num_answers, cut_bytes in crashes:
            asyncio.run(_work_until_crash(folder, num_answers, delays))
            out = folder / "out"
            out.write_bytes(out.read_bytes()[: max(0, out.stat().st_size - cut_bytes)])
        ending, counts = asyncio.run(_work_off(folder, _in_order(delays)))
        assert (ending, counts.completed) == (Ending.DONE, num_rows)
        assert _ids(folder) == {str(number): 1 for number in range(num_rows)}


def _in_order(delays: list[int], crash_after: int | None = None) -> Answer:
    num_answers = 0
    tried: set[str] = set()

    async def answer(_batch: Batch, row: Row) -> RowAnswer:
        nonlocal num_answers
        if row.custom_id not in tried:
            tried.add(row.custom_id)
            return _BUSY
        for _ in range(delays[int(row.custom_id)]):
            await asyncio.sleep(0)
        num_answers += 1
        if crash_after is not None and num_answers > crash_after:
            raise _CrashError
        return _OK

    return answer


class _CrashError(Exception):
    pass


async def _work_until_crash(folder: Path, num_answers: int, delays: list[int]) -> None:
    try:
        await _work_off(folder, _in_order(delays, num_answers))
    except _CrashError:
        return
