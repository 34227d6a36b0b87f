"""The program that touches the GPUs, run by its path in a process of its own; it prints one JSON object.

    python -P probe.py kernels              each GPU: its architecture, and a matrix product checked against the CPU
    python -P probe.py speeds               each GPU: copies and a large matrix product, timed
    python -P probe.py allreduce BACKEND N  N processes add up their tensors

A kernel that hangs, a driver that crashes and the CUDA context stay in here. It imports nothing of the engine, so that
it starts as fast as torch does. What goes wrong with one GPU is that GPU's `error`.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MIB = 1 << 20
_KILL_WITH_PARENT = 1, 9  # prctl's PR_SET_PDEATHSIG, and SIGKILL


def main(arguments: list[str]) -> int:
    """Run one mode. Whatever libraries print goes to stderr: stdout carries the JSON object alone."""
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    die_with_parent()
    try:
        answer = MODES[arguments[0]](*arguments[1:])
    except Exception as error:  # noqa: BLE001 - the boundary of the process: the reader of the JSON is told
        answer = {"error": explain(error)}
    os.write(answer_fd, (json.dumps(answer) + "\n").encode())
    return 0


def die_with_parent() -> None:
    """Ask Linux to end this process with the thread that started it, however that one ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(*_KILL_WITH_PARENT)


def explain(error: BaseException) -> str:
    """The error's type and the first lines of its message; CUDA's go on for a paragraph."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:500]}"


def probe_kernels() -> dict[str, Any]:
    """Every GPU's name, capability and the verdict of its matrix products."""
    import torch

    answer = describe_torch(torch)
    answer["gpus"] = [probe_gpu(index, check_gpu) for index in range(torch.cuda.device_count())]
    return answer


def probe_speeds() -> dict[str, Any]:
    """Every GPU's copy rates and arithmetic rate, one GPU after the other."""
    import torch

    answer = describe_torch(torch)
    answer["gpus"] = [probe_gpu(index, measure_gpu) for index in range(torch.cuda.device_count())]
    return answer


def describe_torch(torch: Any) -> dict[str, Any]:
    """The build, and why it sees no GPU if it sees none."""
    answer = {"torch": torch.__version__, "cuda": torch.version.cuda, "arch_list": torch.cuda.get_arch_list()}
    if torch.version.cuda is None:
        answer["error"] = f"torch {torch.__version__} is built without CUDA"
    elif not torch.cuda.is_available():
        try:
            torch.cuda.init()  # raises with the driver's own words, which is_available keeps to itself
            answer["error"] = "torch sees no GPU"
        except (RuntimeError, AssertionError) as error:
            answer["error"] = explain(error)
    return answer


def probe_gpu(index: int, look: Callable[[torch.device, Any], dict[str, Any]]) -> dict[str, Any]:
    """What `look` tells of one GPU, beside its identity."""
    import torch

    answer: dict[str, Any] = {"index": index}
    try:
        properties = torch.cuda.get_device_properties(index)
        answer["name"] = properties.name
        answer["uuid"] = "GPU-" + str(getattr(properties, "uuid", "")).removeprefix("GPU-")
        answer["capability"] = [properties.major, properties.minor]
        device = torch.device("cuda", index)
        with torch.cuda.device(device):
            answer |= look(device, half_dtype(properties.major))
    except Exception as error:  # noqa: BLE001 - one GPU's trouble does not hide the others
        answer["error"] = explain(error)
    return answer


def half_dtype(capability_major: int) -> Any:
    """bfloat16 where the card computes in it, else float16."""
    import torch

    return torch.bfloat16 if capability_major >= 8 else torch.float16


def check_gpu(device: torch.device, half: Any) -> dict[str, Any]:
    """Products in float32 and in the half precision; `wrong` names those that differ from the CPU's."""
    import torch

    dtypes = (torch.float32, half)
    wrong = [name_dtype(dtype) for dtype in dtypes if not check_product(device, dtype)]
    return {"dtypes": [name_dtype(dtype) for dtype in dtypes], "wrong": wrong}


def check_product(device: torch.device, dtype: Any, size: int = 1536, depth: int = 256) -> bool:
    """A matrix product of -1, 0 and 1 on `device` equals the CPU's, bit for bit.

    Sums of 256 such terms are whole numbers up to 256, which bfloat16, float16, TF32 and float32 all hold exactly:
    no tolerance is needed, whatever the order of summation. The size gives every multiprocessor some of the work.
    """
    import torch

    generator = torch.Generator().manual_seed(7)
    left = torch.randint(-1, 2, (size, depth), generator=generator).float()
    right = torch.randint(-1, 2, (depth, size), generator=generator).float()
    product = left.to(device, dtype) @ right.to(device, dtype)
    return torch.equal(product.float().cpu(), left @ right)


def measure_gpu(device: torch.device, half: Any) -> dict[str, Any]:
    """Rates in bytes and floating-point operations a second."""
    import torch

    free_bytes, _ = torch.cuda.mem_get_info(device)
    if free_bytes < 2048 * MIB:
        raise RuntimeError(f"only {free_bytes // MIB} MiB of its memory are free, too little to measure in")
    answer: dict[str, Any] = measure_copies(device, min(2048 * MIB, free_bytes // 4), 256 * MIB)
    torch.cuda.empty_cache()
    answer["flops_dtype"] = name_dtype(half)
    answer["flops"] = measure_product(device, half, 8192)
    return answer


def measure_copies(device: torch.device, num_bytes: int, host_bytes: int) -> dict[str, float]:
    """Copies within the device (each byte read and written, so counted twice) and to and from pinned host memory."""
    import torch

    source = torch.ones(num_bytes // 4, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    host = torch.ones(host_bytes // 4, dtype=torch.int32, pin_memory=device.type == "cuda")
    near = target[: host.numel()]
    return {
        "device_bytes_per_s": 2 * num_bytes / median_s(lambda: target.copy_(source), device),
        "to_device_bytes_per_s": host_bytes / median_s(lambda: near.copy_(host, non_blocking=True), device),
        "from_device_bytes_per_s": host_bytes / median_s(lambda: host.copy_(near, non_blocking=True), device),
    }


def measure_product(device: torch.device, dtype: Any, size: int, warm_s: float = 0.5) -> float:
    """Floating-point operations a second of a square matrix product, warm: 2 n^3 each.

    The operands are random, not zeros: the power that a product takes, and with it the clock, depends on its bits.
    """
    import torch

    left = torch.randn(size, size, device=device, dtype=dtype)
    right = torch.randn(size, size, device=device, dtype=dtype)
    product = torch.empty(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        torch.matmul(left, right, out=product)

    started_s = time.perf_counter()
    while time.perf_counter() - started_s < warm_s:
        multiply()
        synchronize(device)
    return float(2 * size**3 / median_s(multiply, device, num_runs=10))


def median_s(run: Callable[[], object], device: torch.device, num_rounds: int = 5, num_runs: int = 4) -> float:
    """Seconds of one run: the median of a few rounds, each timed as a whole, after a warm-up."""
    run()
    synchronize(device)
    return statistics.median(round_s(run, device, num_runs) for _ in range(num_rounds)) / num_runs


def round_s(run: Callable[[], object], device: torch.device, num_runs: int) -> float:
    """Seconds of several runs, by the GPU's own clock where there is one."""
    import torch

    if device.type != "cuda":
        started_s = time.perf_counter()
        for _ in range(num_runs):
            run()
        return max(time.perf_counter() - started_s, 1e-9)
    before, after = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    before.record()
    for _ in range(num_runs):
        run()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1000


def synchronize(device: torch.device) -> None:
    """Wait for the device; the CPU has done its work already."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)


def name_dtype(dtype: Any) -> str:
    """`bfloat16` for torch.bfloat16."""
    return str(dtype).removeprefix("torch.")


def probe_all_reduce(backend: str, num_processes: str, timeout_s: str = "90") -> dict[str, Any]:
    """One process a GPU (or a CPU process, for gloo) adds up the tensors of all; what each one told, by rank."""
    number = int(num_processes)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        command = [sys.executable, "-P", __file__, "worker", backend, num_processes, str(meeting), timeout_s]
        workers = [
            subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, env=os.environ | ONE_HOST, text=True)
            for rank in range(number)
        ]
        try:
            deadline_s = time.monotonic() + float(timeout_s)
            answers = [read_worker(worker, deadline_s) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    return {"backend": backend, "num_processes": number, "ranks": answers}


# Everything stays on this host: no InfiniBand, the loopback device to meet over. NVLink multicast is left alone: on
# hosts where the fabric is shared, setting it up can hang.
ONE_HOST = {
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_IB_DISABLE": "1",
    "NCCL_SOCKET_IFNAME": "lo",
    "GLOO_SOCKET_IFNAME": "lo",
}


def read_worker(worker: subprocess.Popen[str], deadline_s: float) -> dict[str, Any]:
    """A worker's JSON object, or why there is none; waits until `deadline_s` of the monotonic clock."""
    try:
        text, _ = worker.communicate(timeout=max(0.1, deadline_s - time.monotonic()))
        answer: dict[str, Any] = json.loads(text)
    except subprocess.TimeoutExpired:
        return {"error": "no answer in time"}
    except ValueError:
        return {"error": f"ended with code {worker.returncode} and no answer"}
    return answer


def run_worker(backend: str, num_processes: str, meeting: str, timeout_s: str, rank: str) -> dict[str, Any]:
    """One process of the all-reduce: is the sum right, and the bus bandwidth.

    Bus bandwidth is the bytes of the tensor over the time, times 2 (n - 1) / n: what each link had to carry, so
    that it can be compared with the link's rate whatever n
    (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
    """
    import torch
    from torch import distributed

    number, own = int(num_processes), int(rank)
    device = torch.device("cuda", own) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(
        backend,
        init_method=f"file://{meeting}",
        rank=own,
        world_size=number,
        timeout=timedelta(seconds=float(timeout_s)),
    )
    try:
        tensor = torch.full((2048,), float(own + 1), device=device)
        distributed.all_reduce(tensor)
        expected = float(number * (number + 1) // 2)
        is_right = bool((tensor == expected).all().item())
        num_bytes = (256 if device.type == "cuda" else 4) * MIB
        large = torch.zeros(num_bytes // 4, device=device)
        taken_s = median_s(lambda: distributed.all_reduce(large), device)
    finally:
        distributed.destroy_process_group()
    return {"is_right": is_right, "bus_bytes_per_s": num_bytes / taken_s * 2 * (number - 1) / number}


MODES: dict[str, Callable[..., dict[str, Any]]] = {
    "kernels": probe_kernels,
    "speeds": probe_speeds,
    "allreduce": probe_all_reduce,
    "worker": run_worker,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
