"""Runs the probe in a process of its own, and turns what it prints into readings."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

PROBE = Path(__file__).with_name("probe.py")
KERNELS_TIMEOUT_S = 60.0
SPEEDS_TIMEOUT_S = 180.0
ALL_REDUCE_TIMEOUT_S = 150.0
_KILL_WAIT_S = 5.0
_CANCEL_POLL_S = 0.2


@dataclass(frozen=True)
class ProbedGpu:
    """One GPU as torch sees it. `uuid` ties it to NVML's GPU: torch may number them otherwise.

    `wrong` names the dtypes whose product differed from the CPU's; `error` is why nothing could be told.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    capability: tuple[int, int] | None = None
    dtypes: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    device_bytes_per_s: float | None = None
    to_device_bytes_per_s: float | None = None
    from_device_bytes_per_s: float | None = None
    flops: float | None = None
    flops_dtype: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class ProbeReading:
    """What the probe told; `error` is why it told nothing: it timed out, crashed, or torch sees no GPU."""

    gpus: tuple[ProbedGpu, ...] = ()
    arch_list: tuple[str, ...] = ()
    visible_devices: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class AllReduceReading:
    """An all-reduce over several processes; `errors` by rank. The bus bandwidth is that of the slowest rank."""

    num_processes: int
    is_right: bool | None = None
    bus_bytes_per_s: float | None = None
    errors: Mapping[int, str] | None = None
    error: str | None = None


def read_probe(mode: str, timeout_s: float, cancelled: Event | None = None, probe: Path = PROBE) -> ProbeReading:
    """Run the probe in mode `kernels` or `speeds`; it is ended after `timeout_s`, or once `cancelled` is set."""
    answer = run_probe([mode], timeout_s, cancelled, probe)
    gpus = tuple(_gpu(item) for item in answer.get("gpus", ()))
    return ProbeReading(
        gpus=gpus,
        arch_list=tuple(answer.get("arch_list", ())),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        error=answer.get("error") or (None if gpus else "torch sees no GPU"),
    )


def read_all_reduce(
    num_processes: int,
    backend: str = "nccl",
    timeout_s: float = ALL_REDUCE_TIMEOUT_S,
    cancelled: Event | None = None,
    probe: Path = PROBE,
) -> AllReduceReading:
    """Let one process a GPU add up their tensors; all are ended after `timeout_s`, or once `cancelled` is set."""
    arguments = ["allreduce", backend, str(num_processes), f"{timeout_s * 0.8:g}"]
    answer = run_probe(arguments, timeout_s, cancelled, probe)
    if "error" in answer:
        return AllReduceReading(num_processes, error=answer["error"])
    ranks: list[dict[str, Any]] = answer["ranks"]
    errors = {rank: told["error"] for rank, told in enumerate(ranks) if "error" in told}
    if errors:
        return AllReduceReading(num_processes, errors=errors)
    return AllReduceReading(
        num_processes,
        is_right=all(told["is_right"] for told in ranks),
        bus_bytes_per_s=min(told["bus_bytes_per_s"] for told in ranks),
    )


def run_probe(
    arguments: Sequence[str], timeout_s: float, cancelled: Event | None = None, probe: Path = PROBE
) -> dict[str, Any]:
    """The probe's JSON object, or one with the `error` that kept it from printing one.

    At the timeout, and once `cancelled` is set, the probe and every process that it started are killed.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", str(probe), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        start_new_session=True,
    )
    try:
        told = _listen(process, timeout_s, cancelled or Event())
    finally:
        _end(process)
    return told if isinstance(told, dict) else _parse(*told, process.returncode)


def _listen(
    process: subprocess.Popen[bytes], timeout_s: float, cancelled: Event
) -> tuple[bytes, bytes] | dict[str, Any]:
    deadline_s = time.monotonic() + timeout_s
    while not cancelled.is_set():
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return {"error": f"the probe gave no answer within {timeout_s:g} s and was ended"}
        try:
            return process.communicate(timeout=min(left_s, _CANCEL_POLL_S))
        except subprocess.TimeoutExpired:
            continue
    return {"error": "the run was cancelled"}


def _parse(output: bytes, messages: bytes, code: int) -> dict[str, Any]:
    """A crash counts whatever was printed before it."""
    if code == 0:
        with contextlib.suppress(ValueError):
            answer = json.loads(output)
            if isinstance(answer, dict):
                return answer
    ended = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    said = [line.strip() for line in messages.decode(errors="replace").splitlines() if line.strip()][-2:]
    return {"error": f"the probe {ended} and gave no answer" + (f": {' '.join(said)[-400:]}" if said else "")}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the probe's whole session. One that sleeps in the driver cannot be killed and is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_WAIT_S)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _gpu(item: Mapping[str, Any]) -> ProbedGpu:
    values: dict[str, Any] = {name: tuple(told) if isinstance(told, list) else told for name, told in item.items()}
    return ProbedGpu(**values)
