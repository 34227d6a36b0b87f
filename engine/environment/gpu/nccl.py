"""Do all GPUs of this host add up right, together: the operation that a model spread over them stands on."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import plural
from engine.environment.gpu.probing import AllReduceReading


def judge_all_reduce(reading: AllReduceReading) -> Finding:
    """A wrong sum fails; so does one that does not come, since a model over several GPUs would not run."""
    over = f"over {plural(reading.num_processes, 'GPU')}"
    if reading.error is not None:
        return Finding(CheckStatus.FAIL, f"all-reduce {over}: {reading.error}", _remedy(reading.error))
    if reading.errors:
        observed = "; ".join(f"rank {rank}: {error}" for rank, error in sorted(reading.errors.items()))
        return Finding(CheckStatus.FAIL, f"all-reduce {over}: {observed}", _remedy(observed))
    if not reading.is_right:
        remedy = (
            "Do not spread models over these GPUs. Test the links: `dcgmi diag -r 3`, `nvidia-smi nvlink -e`; on PCIe, "
            "turn ACS off in the BIOS or run with NCCL_P2P_DISABLE=1."
        )
        return Finding(CheckStatus.FAIL, f"all-reduce {over} gives a wrong sum", remedy)
    rate = "" if reading.bus_bytes_per_s is None else f", {reading.bus_bytes_per_s / 1e9:.0f} GB/s bus bandwidth"
    facts = {"num_processes": reading.num_processes}
    return Finding(CheckStatus.PASS, f"all-reduce {over} gives the right sum{rate}", facts=facts)


def _remedy(error: str) -> str:
    if "shm" in error.lower() or "shared memory" in error.lower():
        return "Give the container more shared memory: `docker run --shm-size=8g ...` or `--ipc=host`."
    return (
        "Run again with NCCL_DEBUG=INFO in the environment for NCCL's own words; common causes: a small /dev/shm "
        "(`--shm-size=8g`), Fabric Manager not running (`sudo systemctl restart nvidia-fabricmanager`), PCIe access "
        "control (ACS) in the BIOS (try NCCL_P2P_DISABLE=1)."
    )
