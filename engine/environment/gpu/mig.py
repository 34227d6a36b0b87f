"""Is a GPU split into instances."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import plural, skip
from engine.telemetry.nvml import GpuHealth


def judge_mig(gpu: GpuHealth) -> Finding:
    """A split card warns: a process sees one instance of it, and none where none was made."""
    mig = gpu.mig
    if mig is None:
        return skip("this card cannot be split into instances (MIG), or the driver does not say")
    facts = {"is_mig_enabled": mig.is_enabled, "num_mig_instances": mig.num_instances}
    off = f"`sudo nvidia-smi -i {gpu.index} -mig 0`"
    if mig.is_enabled_pending != mig.is_enabled:
        turned = "on" if mig.is_enabled_pending else "off"
        remedy = f"Reset the card, `sudo nvidia-smi --gpu-reset -i {gpu.index}`, so that the change is made."
        return Finding(CheckStatus.WARN, f"MIG is turned {turned} at the next reset", remedy, facts)
    if not mig.is_enabled:
        return Finding(CheckStatus.PASS, "off", facts=facts)
    if mig.num_instances == 0:
        remedy = (
            f"Make instances, `sudo nvidia-smi mig -i {gpu.index} -cgi PROFILE -C` (`nvidia-smi mig -lgip` lists the "
            f"profiles), or turn it off: {off}."
        )
        return Finding(CheckStatus.WARN, "MIG is on with no instance: torch sees nothing of this card", remedy, facts)
    remedy = (
        f"Name the instance to use, CUDA_VISIBLE_DEVICES=MIG-... (`nvidia-smi -L` lists them), or turn it off: {off}."
    )
    observed = f"MIG is on with {plural(mig.num_instances, 'instance')}: torch sees one of them, not the whole card"
    return Finding(CheckStatus.WARN, observed, remedy, facts)
