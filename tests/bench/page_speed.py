"""How long a rerun of each page takes with 100,000 stored records."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

from streamlit.testing.v1 import AppTest

from dashboard.resources import give_console
from engine import Console, Settings, open_console
from engine.latency import RequestRecord, Status, percentile
from tests.bench.results import Figure

_PAGES = (
    "overview",
    "playground",
    "models",
    "weights",
    "quantization",
    "latency",
    "telemetry",
    "environment",
    "settings",
)
_NUM_RECORDS = 100_000
_NUM_RERUNS = 20
_ROOT = Path(__file__).resolve().parents[2]


def measure(home: Path) -> Iterator[Figure]:
    """P95 over reruns of each page, after a first run that is not counted."""
    console = open_console(Settings(home=home, model="none"))
    give_console(console)
    try:
        fill(console, _NUM_RECORDS)
        for name in _PAGES:
            yield Figure(f"page.{name}.rerun_p95_ms", _rerun_p95_s(name) * 1000, "ms")
    finally:
        give_console(None)
        console.close()


def fill(console: Console, num_records: int) -> None:
    """Plausible records over the last 24 hours."""
    draw = random.Random(0)
    now = time.time()
    for index in range(num_records):
        scheduled = draw.expovariate(50)
        first = scheduled + draw.lognormvariate(-1.6, 0.5)
        num_output = draw.randint(1, 400)
        last = first + (num_output - 1) * draw.lognormvariate(-3.0, 0.2)
        console.records.append(
            RequestRecord(
                request_id=f"bench-{index}",
                model=f"model-{index % 3}",
                source="api",
                received_at_s=now - draw.random() * 86_400,
                scheduled_s=scheduled,
                first_token_s=first,
                last_token_s=last,
                finished_s=last,
                num_prompt_tokens=draw.randint(10, 2000),
                num_output_tokens=num_output,
                finish_reason="stop",
                status=Status.SUCCESSFUL,
            )
        )
        if index % 20_000 == 0:
            console.records.flush()
    console.records.flush()


def _rerun_p95_s(name: str) -> float:
    page = AppTest.from_file(str(_ROOT / "dashboard" / "app.py"), default_timeout=60).run()
    if name != "overview":
        page.switch_page(f"../pages/{name}.py")
    if name == "latency":
        page.query_params["range"] = "All"
    page.run()
    times = []
    for _ in range(_NUM_RERUNS):
        began = time.perf_counter()
        page.run()
        times.append(time.perf_counter() - began)
    if page.exception:
        raise RuntimeError(f"{name}: {page.exception[0].value}")
    p95 = percentile(times, 0.95)
    assert p95 is not None
    return p95
