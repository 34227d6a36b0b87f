"""What tells whether a GPU is healthy: read on request, not by the sampler, since it takes some dozens of calls."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.telemetry.nvml.asking import Asker, flag, ratio, watts


class ClockEvent(StrEnum):
    """Why a GPU does not clock higher; idling is not among them."""

    APPLICATION_CLOCKS = "application clocks setting"
    POWER_CAP = "software power cap"
    HW_SLOWDOWN = "hardware slowdown"
    SYNC_BOOST = "sync boost"
    SW_THERMAL = "software thermal slowdown"
    HW_THERMAL = "hardware thermal slowdown"
    POWER_BRAKE = "hardware power brake"
    DISPLAY = "display clock setting"


# The bits of nvmlClocksEventReasons, https://docs.nvidia.com/deploy/nvml-api (0x1 is idle).
CLOCK_EVENT_BITS = {
    0x002: ClockEvent.APPLICATION_CLOCKS,
    0x004: ClockEvent.POWER_CAP,
    0x008: ClockEvent.HW_SLOWDOWN,
    0x010: ClockEvent.SYNC_BOOST,
    0x020: ClockEvent.SW_THERMAL,
    0x040: ClockEvent.HW_THERMAL,
    0x080: ClockEvent.POWER_BRAKE,
    0x100: ClockEvent.DISPLAY,
}


@dataclass(frozen=True)
class EccReading:
    """Memory error correction. `volatile` counts since the driver was loaded, `aggregate` over the card's life."""

    is_enabled: bool | None = None
    is_enabled_pending: bool | None = None
    uncorrected_volatile: int | None = None
    uncorrected_aggregate: int | None = None
    corrected_volatile: int | None = None
    corrected_aggregate: int | None = None


@dataclass(frozen=True)
class RemappedRows:
    """Memory rows replaced by spare ones. `is_pending` waits for a reset; `has_failed` found no spare row."""

    num_correctable: int
    num_uncorrectable: int
    is_pending: bool
    has_failed: bool


@dataclass(frozen=True)
class PcieReading:
    """The link to the host, now and at most; the maximum is what card and slot can do together."""

    generation: int | None = None
    generation_max: int | None = None
    width: int | None = None
    width_max: int | None = None


@dataclass(frozen=True)
class MigReading:
    """Multi-instance mode now and after the next reset; `num_instances` are the compute devices it is split into."""

    is_enabled: bool
    is_enabled_pending: bool
    num_instances: int


@dataclass(frozen=True)
class GpuProcess:
    """A process on a GPU. Inside a container its `pid` is the host's, and its name mostly cannot be told."""

    pid: int
    name: str | None
    memory_used_bytes: int | None


@dataclass(frozen=True)
class GpuHealth:
    """One GPU's health. `clock_events` and `processes` are None where the driver does not tell, empty where none are.

    `is_retirement_pending` is the older cards' word for a pending row remapping. `num_nvlinks` counts links that
    exist, `num_nvlinks_active` those in use.
    """

    index: int
    uuid: str | None = None
    name: str | None = None
    minor_number: int | None = None
    is_data_center: bool | None = None
    ecc: EccReading = EccReading()
    remapped_rows: RemappedRows | None = None
    is_retirement_pending: bool | None = None
    clock_events: tuple[ClockEvent, ...] | None = None
    pcie: PcieReading = PcieReading()
    is_persistent: bool | None = None
    mig: MigReading | None = None
    power_limit_w: float | None = None
    power_limit_default_w: float | None = None
    utilization_ratio: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    processes: tuple[GpuProcess, ...] | None = None
    num_nvlinks: int = 0
    num_nvlinks_active: int = 0
    error: str | None = None


@dataclass(frozen=True)
class HealthInventory:
    """The health of every GPU the driver lists; `reason` is one sentence on why there are none, else None."""

    gpus: tuple[GpuHealth, ...] = ()
    reason: str | None = None


def read_gpu_health(nvml: Any, index: int) -> GpuHealth:
    """Ask about one GPU all that tells its health; what the driver cannot tell is None."""
    asker = Asker(nvml)
    handle = asker.ask(nvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return GpuHealth(index, error=asker.error or "This user may not open the GPU.")
    memory = asker.memory(handle)
    busy = asker.ask(nvml.nvmlDeviceGetUtilizationRates, handle)
    links = _read_nvlinks(asker, nvml, handle)
    return GpuHealth(
        index=index,
        uuid=asker.ask(nvml.nvmlDeviceGetUUID, handle),
        name=asker.ask(nvml.nvmlDeviceGetName, handle),
        minor_number=asker.ask(nvml.nvmlDeviceGetMinorNumber, handle),
        is_data_center=_is_data_center(nvml, asker.ask(nvml.nvmlDeviceGetBrand, handle)),
        ecc=_read_ecc(asker, nvml, handle),
        remapped_rows=_read_remapped_rows(asker, nvml, handle),
        is_retirement_pending=flag(asker.ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus, handle)),
        clock_events=_clock_events(_read_clock_bits(asker, nvml, handle)),
        pcie=_read_pcie(asker, nvml, handle),
        is_persistent=flag(asker.ask(nvml.nvmlDeviceGetPersistenceMode, handle)),
        mig=_read_mig(asker, nvml, handle),
        power_limit_w=watts(asker.ask(nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
        power_limit_default_w=watts(asker.ask(nvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)),
        utilization_ratio=ratio(busy and busy.gpu),
        memory_used_bytes=memory and memory.used,
        memory_total_bytes=memory and memory.total,
        processes=_read_processes(asker, nvml, handle),
        num_nvlinks=len(links),
        num_nvlinks_active=sum(links),
        error=asker.error,
    )


def _is_data_center(nvml: Any, brand: int | None) -> bool | None:
    """NVML calls older data-center cards Tesla and those since the A100 plainly NVIDIA."""
    return None if brand is None else brand in (nvml.NVML_BRAND_TESLA, nvml.NVML_BRAND_NVIDIA)


def _read_ecc(asker: Asker, nvml: Any, handle: Any) -> EccReading:
    def count(error_type: int, counter: int) -> int | None:
        number: int | None = asker.ask(nvml.nvmlDeviceGetTotalEccErrors, handle, error_type, counter)
        return number

    corrected, uncorrected = nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    modes = asker.ask(nvml.nvmlDeviceGetEccMode, handle)
    return EccReading(
        is_enabled=flag(modes and modes[0]),
        is_enabled_pending=flag(modes and modes[1]),
        uncorrected_volatile=count(uncorrected, nvml.NVML_VOLATILE_ECC),
        uncorrected_aggregate=count(uncorrected, nvml.NVML_AGGREGATE_ECC),
        corrected_volatile=count(corrected, nvml.NVML_VOLATILE_ECC),
        corrected_aggregate=count(corrected, nvml.NVML_AGGREGATE_ECC),
    )


def _read_remapped_rows(asker: Asker, nvml: Any, handle: Any) -> RemappedRows | None:
    rows = asker.ask(nvml.nvmlDeviceGetRemappedRows, handle)
    return None if rows is None else RemappedRows(rows[0], rows[1], bool(rows[2]), bool(rows[3]))


def _read_clock_bits(asker: Asker, nvml: Any, handle: Any) -> int | None:
    """Drivers before 535 know these bits only by the older name."""
    bits: int | None = asker.ask(nvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    return asker.ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle) if bits is None else bits


def _clock_events(bits: int | None) -> tuple[ClockEvent, ...] | None:
    return None if bits is None else tuple(event for bit, event in CLOCK_EVENT_BITS.items() if bits & bit)


def _read_pcie(asker: Asker, nvml: Any, handle: Any) -> PcieReading:
    return PcieReading(
        generation=asker.ask(nvml.nvmlDeviceGetCurrPcieLinkGeneration, handle),
        generation_max=asker.ask(nvml.nvmlDeviceGetMaxPcieLinkGeneration, handle),
        width=asker.ask(nvml.nvmlDeviceGetCurrPcieLinkWidth, handle),
        width_max=asker.ask(nvml.nvmlDeviceGetMaxPcieLinkWidth, handle),
    )


def _read_mig(asker: Asker, nvml: Any, handle: Any) -> MigReading | None:
    modes = asker.ask(nvml.nvmlDeviceGetMigMode, handle)
    if modes is None:
        return None
    possible = (asker.ask(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0) if modes[0] else 0
    found = [asker.ask_beyond(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(possible)]
    return MigReading(bool(modes[0]), bool(modes[1]), sum(instance is not None for instance in found))


def _read_processes(asker: Asker, nvml: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    lists = [
        asker.ask(function, handle)
        for function in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses)
    ]
    if lists[0] is None:
        return None
    by_pid = {process.pid: process.usedGpuMemory for some in lists for process in some or ()}
    return tuple(
        GpuProcess(pid, asker.ask_beyond(nvml.nvmlSystemGetProcessName, pid), used) for pid, used in by_pid.items()
    )


def _read_nvlinks(asker: Asker, nvml: Any, handle: Any) -> list[bool]:
    """Whether each link is active; the first that the driver does not know ends the list."""
    links: list[bool] = []
    for number in range(nvml.NVML_NVLINK_MAX_LINKS):
        state = asker.ask_beyond(nvml.nvmlDeviceGetNvLinkState, handle, number)
        if state is None:
            break
        links.append(bool(state))
    return links
