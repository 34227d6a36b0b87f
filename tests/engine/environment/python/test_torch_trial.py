from __future__ import annotations

import sys
import time
from dataclasses import replace

import pytest

from engine.environment.check import CheckStatus
from engine.environment.python.torch_build import TorchBuild, read_torch_build
from engine.environment.python.torch_trial import TorchTrial, TrialFailure, judge_torch, parse_trial, try_torch

CPU = TorchBuild("2.13.0+cpu", None)
CUDA = TorchBuild("2.13.0", "13.0")
TRIAL = TorchTrial("2.13.0+cpu", None, 2, "AVX2", is_float32_exact=True, is_bfloat16_exact=True)
PIP = f"{sys.executable} -m pip install --force-reinstall"


def test_torch_here_multiplies() -> None:
    trial = try_torch()
    assert isinstance(trial, TorchTrial)
    assert trial.is_float32_exact
    assert trial.is_bfloat16_exact
    assert trial.num_threads >= 1
    build = read_torch_build()
    assert build is not None
    assert trial.cuda_version == build.cuda_version
    assert judge_torch(build, trial).status is CheckStatus.PASS


def test_a_trial_that_works_tells_what_it_saw() -> None:
    finding = judge_torch(CPU, TRIAL)
    assert finding.observed == (
        "torch 2.13.0+cpu, built for the CPU, 2 thread(s), AVX2; products in float32 and bfloat16 are exact"
    )
    assert finding.facts == {
        "version": "2.13.0+cpu",
        "cuda_version": None,
        "num_threads": 2,
        "cpu_capability": "AVX2",
    }
    assert "built for CUDA 13.0" in judge_torch(CUDA, replace(TRIAL, cuda_version="13.0")).observed


@pytest.mark.parametrize(
    ("script", "reason", "signal"),
    [
        ("import no_such_module_here", "ModuleNotFoundError: No module named 'no_such_module_here'", None),
        ("raise OSError('libgomp.so.1: cannot open shared object file')", "cannot open shared object file", None),
        ("import os; os.abort()", "ended by SIGABRT", "SIGABRT"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by SIGSEGV: it printed nothing", "SIGSEGV"),
        ("import sys; sys.stderr.write('lib: bad\\n\\n'); sys.exit(3)", "lib: bad", None),
        ("print('torch is fine')", "it printed nothing", None),
    ],
)
def test_a_crash_stays_in_its_process_and_is_told(script: str, reason: str, signal: str | None) -> None:
    failure = try_torch(script=script)
    assert isinstance(failure, TrialFailure)
    assert reason in failure.reason
    assert failure.signal == signal


def test_an_import_that_hangs_is_ended() -> None:
    started_s = time.monotonic()
    failure = try_torch(timeout_s=0.3, script="import time; time.sleep(60)")
    assert failure == TrialFailure("importing torch and multiplying took longer than 0.3 s")
    assert time.monotonic() - started_s < 30


def test_an_interpreter_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert try_torch() == TrialFailure("/no/such/python does not start: No such file or directory")


def test_what_torch_prints_on_its_own_does_not_disturb() -> None:
    marked = 'torch-trial {"version": "2", "cuda_version": null, "num_threads": 1, "cpu_capability": "DEFAULT", '
    marked += '"is_float32_exact": true, "is_bfloat16_exact": false}'
    trial = parse_trial(0, f"a word of welcome\n{marked}\n", "a warning\n")
    assert trial == TorchTrial("2", None, 1, "DEFAULT", is_float32_exact=True, is_bfloat16_exact=False)
    assert parse_trial(-99, "", "") == TrialFailure("ended by signal 99: it printed nothing", "signal 99")


@pytest.mark.parametrize(
    ("build", "failure", "remedy"),
    [
        (CUDA, TrialFailure("ImportError: no"), f"{PIP} --no-deps torch==2.13.0"),
        (
            CPU,
            TrialFailure("ended by SIGSEGV", "SIGSEGV"),
            f"{PIP} --no-deps torch==2.13.0+cpu --index-url https://download.pytorch.org/whl/cpu",
        ),
        (CUDA, TrialFailure("ended by SIGILL", "SIGILL"), "built for this processor"),
        (CUDA, TrialFailure("ended by SIGKILL", "SIGKILL"), "dmesg"),
        (CUDA, TrialFailure("ImportError: libx.so: cannot open shared object file"), "Install the system library"),
        (CUDA, TrialFailure("ModuleNotFoundError: No module named 'sympy'"), f"{PIP} torch==2.13.0"),
        (CUDA, TrialFailure("importing torch and multiplying took longer than 30 s"), "-X importtime"),
    ],
)
def test_torch_that_does_not_work_fails_with_the_remedy(build: TorchBuild, failure: TrialFailure, remedy: str) -> None:
    finding = judge_torch(build, failure)
    assert finding.status is CheckStatus.FAIL
    assert failure.reason in finding.observed
    assert remedy in (finding.remedy or "")


def test_wrong_products_fail() -> None:
    finding = judge_torch(CPU, replace(TRIAL, is_bfloat16_exact=False))
    assert finding.status is CheckStatus.FAIL
    assert finding.observed.endswith("wrong products in bfloat16")
    assert "no answer can be trusted" in (finding.remedy or "")


def test_no_torch_fails() -> None:
    finding = judge_torch(None, TrialFailure("torch is not installed"))
    assert (finding.status, finding.observed) == (CheckStatus.FAIL, "torch is not installed")
    assert "make run" in (finding.remedy or "")
