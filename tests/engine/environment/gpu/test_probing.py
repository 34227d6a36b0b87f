from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from engine.environment.gpu.probing import (
    AllReduceReading,
    ProbedGpu,
    read_all_reduce,
    read_probe,
    run_probe,
)
from tests.engine.environment.gpu.processes import wait_until_gone


def script(folder: Path, text: str) -> Path:
    file = folder / "probe.py"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_answer_is_read_into_gpus(tmp_path: Path) -> None:
    answer = (
        "{'arch_list': ['sm_90'], 'gpus': [{'index': 0, 'uuid': 'GPU-a', 'capability': [9, 0], 'wrong': [],"
        " 'dtypes': ['float32']}]}"
    )
    probe = script(tmp_path, f"import json, sys\nassert sys.argv[1:] == ['kernels']\nprint(json.dumps({answer}))\n")
    reading = read_probe("kernels", 20, probe=probe)
    assert reading.error is None
    assert reading.arch_list == ("sm_90",)
    assert reading.gpus == (ProbedGpu(0, "GPU-a", capability=(9, 0), dtypes=("float32",)),)


def test_torch_without_a_gpu_is_an_error(tmp_path: Path) -> None:
    assert read_probe("kernels", 20, probe=script(tmp_path, "print('{}')")).error == "torch sees no GPU"


def test_a_probe_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    probe = script(
        tmp_path,
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(60)\n",
    )
    started_s = time.monotonic()
    assert read_probe("kernels", 4, probe=probe).error == "the probe gave no answer within 4 s and was ended"
    assert time.monotonic() - started_s < 30
    for pid in pids.read_text(encoding="utf-8").split():
        wait_until_gone(int(pid))


def test_a_crash_is_told_by_its_signal(tmp_path: Path) -> None:
    probe = script(tmp_path, "import os, signal\nprint('{}', flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    assert run_probe([], 20, probe=probe) == {"error": "the probe was ended by SIGSEGV and gave no answer"}


def test_an_exit_code_comes_with_the_last_words(tmp_path: Path) -> None:
    probe = script(tmp_path, "import sys\nsys.stderr.write('first\\nlibcudart.so: cannot open\\n')\nsys.exit(3)\n")
    error = run_probe([], 20, probe=probe)["error"]
    assert error == "the probe ended with code 3 and gave no answer: first libcudart.so: cannot open"


@pytest.mark.parametrize("output", ["not JSON", "[1]", ""])
def test_an_answer_that_is_none_is_an_error(tmp_path: Path, output: str) -> None:
    assert (
        "ended with code 0 and gave no answer"
        in run_probe([], 20, probe=script(tmp_path, f"print({output!r})"))["error"]
    )


def test_gpus_are_numbered_as_the_driver_does(tmp_path: Path) -> None:
    probe = script(tmp_path, "import json, os\nprint(json.dumps({'order': os.environ['CUDA_DEVICE_ORDER']}))\n")
    assert run_probe([], 20, probe=probe) == {"order": "PCI_BUS_ID"}
    assert "CUDA_DEVICE_ORDER" not in os.environ


def test_two_processes_really_add_up() -> None:
    reading = read_all_reduce(2, "gloo", 60)
    assert reading.error is None
    assert reading.errors is None
    assert reading.is_right
    assert reading.bus_bytes_per_s is not None
    assert reading.bus_bytes_per_s > 1e6


def test_a_rank_that_fails_is_named(tmp_path: Path) -> None:
    answer = "{'ranks': [{'is_right': True, 'bus_bytes_per_s': 1.0}, {'error': 'boom'}]}"
    probe = script(tmp_path, f"import json\nprint(json.dumps({answer}))\n")
    assert read_all_reduce(2, "nccl", 20, probe=probe) == AllReduceReading(2, errors={1: "boom"})
    assert read_all_reduce(2, "nccl", 20, probe=script(tmp_path, 'print(\'{"error": "x"}\')')).error == "x"


def test_the_slowest_rank_counts(tmp_path: Path) -> None:
    answer = "{'ranks': [{'is_right': True, 'bus_bytes_per_s': 2.0}, {'is_right': False, 'bus_bytes_per_s': 1.0}]}"
    probe = script(tmp_path, f"import json\nprint(json.dumps({answer}))\n")
    assert read_all_reduce(2, "nccl", 20, probe=probe) == AllReduceReading(2, is_right=False, bus_bytes_per_s=1.0)


def test_a_cancelled_run_ends_its_probe_at_once(tmp_path: Path) -> None:
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    started_s = time.monotonic()
    reading = read_probe("speeds", 60, cancelled, script(tmp_path, "import time; time.sleep(60)"))
    assert reading.error == "the run was cancelled"
    assert time.monotonic() - started_s < 30
