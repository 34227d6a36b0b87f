"""What slows a GPU down: heat, power, its limit; and whether the driver stays loaded."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Finding
from engine.environment.gpu.each import skip
from engine.telemetry.nvml import ClockEvent, GpuHealth

_LIMIT_SHARE = 0.98  # a limit a watt below the default is rounding
_HEAT = {ClockEvent.SW_THERMAL, ClockEvent.HW_THERMAL}
_ALARMS = _HEAT | {ClockEvent.HW_SLOWDOWN, ClockEvent.POWER_BRAKE}


def judge_throttle(gpu: GpuHealth) -> Finding:
    """Heat and hardware slowdowns warn. Working at the power limit is what a busy GPU does; set clocks are told."""
    events = gpu.clock_events
    if events is None:
        return skip("the driver does not tell what holds the clocks down")
    alarms = [event for event in events if event in _ALARMS]
    if not events:
        return Finding(CheckStatus.PASS, "nothing holds the clocks down")
    observed = ", ".join(events)
    if not alarms:
        return Finding(CheckStatus.PASS, f"{observed}: no alarm")
    return Finding(CheckStatus.WARN, observed, _throttle_remedy(set(alarms), gpu))


def judge_power_limit(gpu: GpuHealth) -> Finding:
    """Warn where less power is allowed than the card comes with."""
    limit, default = gpu.power_limit_w, gpu.power_limit_default_w
    if limit is None or default is None:
        return skip("the driver does not tell the power limit and its default")
    facts = {"power_limit_w": limit}
    if limit >= _LIMIT_SHARE * default:
        return Finding(CheckStatus.PASS, f"{limit:.0f} W, the default is {default:.0f} W", facts=facts)
    remedy = (
        f"If no one wants it so (a rack's power budget), raise it: `sudo nvidia-smi -i {gpu.index} -pl {default:.0f}`."
    )
    return Finding(CheckStatus.WARN, f"{limit:.0f} W, below the default of {default:.0f} W", remedy, facts)


def judge_persistence(gpu: GpuHealth) -> Finding:
    """Off on a data-center card warns: the driver unloads with the last client and takes seconds to come back."""
    if gpu.is_persistent is None:
        return skip("the driver does not tell the persistence mode")
    facts = {"is_persistent": gpu.is_persistent}
    if gpu.is_persistent:
        return Finding(CheckStatus.PASS, "on", facts=facts)
    if not gpu.is_data_center:
        return Finding(CheckStatus.PASS, "off, as usual on a workstation", facts=facts)
    remedy = (
        "On the host: `sudo nvidia-smi -pm 1`, or for good `sudo systemctl enable --now nvidia-persistenced`; else the "
        "first request after a pause waits for the driver."
    )
    return Finding(CheckStatus.WARN, "off", remedy, facts)


def _throttle_remedy(alarms: set[ClockEvent], gpu: GpuHealth) -> str:
    if alarms & _HEAT:
        return (
            f"GPU {gpu.index} is too hot: check fans, air flow and inlet temperature (`nvidia-smi -q -d TEMPERATURE`)."
        )
    if ClockEvent.POWER_BRAKE in alarms:
        return "The machine asks its GPUs to draw less: check power supplies, their cables and the rack's power budget."
    return (
        "Run again; if it stays, look at heat and power supply (`nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER`). The "
        "driver also shows it for a moment while clocks change."
    )
