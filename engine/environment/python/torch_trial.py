"""Does torch work here: it is imported and multiplies in a process of its own, whose crash stays there."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.python.torch_build import TorchBuild

TRIAL_TIMEOUT_S = 30.0
_MARK = "torch-trial "

# Products of small whole numbers: exact in both types (bfloat16 holds every whole number up to 256), so that anything
# but equality is an error. Garbage collection during the import and the teardown of the interpreter would take a
# quarter of the time.
_SCRIPT = f"""
import gc
gc.disable()
import json, os, sys
import torch
rows = [[(3 * i + j) % 4 for j in range(16)] for i in range(8)]
columns = [[(i + 2 * j) % 4 for j in range(8)] for i in range(16)]
exact = [[sum(row[k] * columns[k][j] for k in range(16)) for j in range(8)] for row in rows]
def is_exact(dtype):
    return (torch.tensor(rows, dtype=dtype) @ torch.tensor(columns, dtype=dtype)).tolist() == exact
found = dict(
    version=str(torch.__version__),
    cuda_version=torch.version.cuda,
    num_threads=torch.get_num_threads(),
    cpu_capability=torch.backends.cpu.get_cpu_capability(),
    is_float32_exact=is_exact(torch.float32),
    is_bfloat16_exact=is_exact(torch.bfloat16),
)
sys.stdout.write("\\n{_MARK}" + json.dumps(found) + "\\n")
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class TorchTrial:
    """What torch said of itself and how its products came out. `cuda_version` is None for a build without CUDA;
    `cpu_capability` names the kernels that it chose, such as `AVX512`."""

    version: str
    cuda_version: str | None
    num_threads: int
    cpu_capability: str
    is_float32_exact: bool
    is_bfloat16_exact: bool


@dataclass(frozen=True)
class TrialFailure:
    """The trial did not get to its end. `signal` is the name of what ended it, such as `SIGSEGV`."""

    reason: str
    signal: str | None = None


def try_torch(timeout_s: float = TRIAL_TIMEOUT_S, script: str = _SCRIPT) -> TorchTrial | TrialFailure:
    """Run the trial; never raises, whatever torch does."""
    command = [sys.executable, "-P", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return TrialFailure(f"importing torch and multiplying took longer than {timeout_s:g} s")
    except OSError as error:
        return TrialFailure(f"{sys.executable} does not start: {error.strerror or error}")
    return parse_trial(done.returncode, done.stdout, done.stderr)


def parse_trial(returncode: int, stdout: str, stderr: str) -> TorchTrial | TrialFailure:
    """What a trial printed: the reading, or the last line of its errors."""
    marked = [line for line in stdout.splitlines() if line.startswith(_MARK)]
    if returncode == 0 and marked:
        return TorchTrial(**json.loads(marked[-1].removeprefix(_MARK)))
    last = next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "it printed nothing")
    if returncode >= 0:
        return TrialFailure(last)
    name = _signal_name(-returncode)
    return TrialFailure(f"ended by {name}: {last}", name)


def judge_torch(build: TorchBuild | None, trial: TorchTrial | TrialFailure) -> Finding:
    """Fail where torch is missing, does not import, or multiplies wrongly."""
    if build is None:
        return Finding(CheckStatus.FAIL, "torch is not installed", "Run `make run`, which installs the pinned one.")
    facts: dict[str, Fact] = {"version": build.version, "cuda_version": build.cuda_version}
    if isinstance(trial, TrialFailure):
        observed = f"torch {build.version} is installed and does not work: {trial.reason}"
        return Finding(CheckStatus.FAIL, observed, _remedy(build, trial), facts)
    facts |= {"num_threads": trial.num_threads, "cpu_capability": trial.cpu_capability}
    built = f"CUDA {trial.cuda_version}" if trial.cuda_version else "the CPU"
    observed = f"torch {trial.version}, built for {built}, {trial.num_threads} thread(s), {trial.cpu_capability}"
    outcomes = {"float32": trial.is_float32_exact, "bfloat16": trial.is_bfloat16_exact}
    if all(outcomes.values()):
        return Finding(CheckStatus.PASS, f"{observed}; products in float32 and bfloat16 are exact", facts=facts)
    wrong = " and ".join(name for name, is_exact in outcomes.items() if not is_exact)
    remedy = (
        f"{_reinstall(build)}; if products stay wrong, test the processor and its memory: no answer can be trusted."
    )
    return Finding(CheckStatus.FAIL, f"{observed}; wrong products in {wrong}", remedy, facts)


def _remedy(build: TorchBuild, failure: TrialFailure) -> str:
    if "does not start" in failure.reason:
        return f"Let this user run {sys.executable}, or start the console with a Python that it may run."
    if failure.signal == "SIGILL":
        return (
            "Install a torch built for this processor (`lscpu` lists what it can do); for a virtual machine, pass the "
            "host's processor through."
        )
    if failure.signal == "SIGKILL":
        return (
            "Look in `dmesg` for the out-of-memory killer; give the machine or the container at least 1 GB of memory."
        )
    if "cannot open shared object file" in failure.reason:
        return f"Install the system library named here; if it is one of torch's own: {_reinstall(build)}"
    if "No module named" in failure.reason and "'torch'" not in failure.reason:
        return f"A package that torch needs is missing: {_install(build, '--force-reinstall')}"
    if "took longer" in failure.reason:
        return f"Run `{sys.executable} -X importtime -c 'import torch'` to see where it waits: a slow disk is usual."
    return _reinstall(build)


def _reinstall(build: TorchBuild) -> str:
    return _install(build, "--force-reinstall", "--no-deps")


def _install(build: TorchBuild, *options: str) -> str:
    """The same build again; those with a local version such as `+cpu` come from PyTorch's own index of that name."""
    _, _, local = build.version.partition("+")
    index = ["--index-url", f"https://download.pytorch.org/whl/{local}"] if local else []
    return shlex.join([sys.executable, "-m", "pip", "install", *options, f"torch=={build.version}", *index])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
