"""Memory errors that a GPU has counted, and what it did about them."""

from __future__ import annotations

from engine.environment.check import CheckStatus, Fact, Finding
from engine.environment.gpu.each import skip
from engine.telemetry.nvml import EccReading, GpuHealth

NOT_TOLD = "not told"


def judge_ecc(gpu: GpuHealth) -> Finding:
    """Uncorrected errors since the driver was loaded fail; older ones, and ECC switched off, warn."""
    ecc = gpu.ecc
    if ecc.is_enabled is None and ecc.uncorrected_volatile is None:
        return skip("not told: this card has no ECC or the driver does not say")
    observed, facts = _describe(ecc), _facts(ecc)
    if ecc.uncorrected_volatile:
        remedy = (
            f"Take the work off GPU {gpu.index} and reset it so that bad rows are replaced: {_reset_command(gpu)}; if "
            f"errors come back, test it with `dcgmi diag -r 3 -i {gpu.index}` and have the card replaced."
        )
        return Finding(CheckStatus.FAIL, observed, remedy, facts)
    if ecc.uncorrected_aggregate:
        remedy = (
            "If the check of remapped rows passes, the bad rows are replaced: write the number down and clear it with "
            f"`sudo nvidia-smi -i {gpu.index} -p 1`. If it grows, have the card replaced."
        )
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if ecc.is_enabled_pending is not None and ecc.is_enabled_pending != ecc.is_enabled:
        remedy = f"Restart the machine or reset the card: {_reset_command(gpu)}."
        return Finding(CheckStatus.WARN, f"{observed}; to be changed at the next reset", remedy, facts)
    if ecc.is_enabled is False and gpu.is_data_center:
        remedy = f"Switch it on, then reset the card: `sudo nvidia-smi -i {gpu.index} -e 1`, {_reset_command(gpu)}."
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def judge_remapped_rows(gpu: GpuHealth) -> Finding:
    """A failed remapping fails; one that waits for a reset warns; rows replaced in time are told."""
    rows = gpu.remapped_rows
    if rows is None:
        return _judge_retired_pages(gpu)
    observed = (
        f"{rows.num_uncorrectable} rows replaced after uncorrectable, {rows.num_correctable} after correctable errors"
    )
    facts: dict[str, Fact] = {
        "rows_remapped": rows.num_correctable + rows.num_uncorrectable,
        "is_remapping_pending": rows.is_pending,
        "has_remapping_failed": rows.has_failed,
    }
    if rows.has_failed:
        remedy = f"Have GPU {gpu.index} replaced: it has no spare row left for a bad one; keep work off it until then."
        return Finding(CheckStatus.FAIL, f"{observed}; a remapping failed", remedy, facts)
    if rows.is_pending:
        return Finding(CheckStatus.WARN, f"{observed}; more wait for a reset", _reset(gpu), facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def _judge_retired_pages(gpu: GpuHealth) -> Finding:
    """What cards before the A100 have instead."""
    if gpu.is_retirement_pending is None:
        return skip("not told: this card neither remaps rows nor retires pages, or the driver does not say")
    facts: dict[str, Fact] = {"is_retirement_pending": gpu.is_retirement_pending}
    if gpu.is_retirement_pending:
        return Finding(CheckStatus.WARN, "memory pages wait to be retired", _reset(gpu), facts)
    return Finding(CheckStatus.PASS, "no memory page waits to be retired", facts=facts)


def _reset_command(gpu: GpuHealth) -> str:
    return f"`sudo nvidia-smi --gpu-reset -i {gpu.index}`"


def _reset(gpu: GpuHealth) -> str:
    return f"Take the work off GPU {gpu.index} and reset it: {_reset_command(gpu)}, or restart the machine."


def _describe(ecc: EccReading) -> str:
    mode = NOT_TOLD if ecc.is_enabled is None else "on" if ecc.is_enabled else "off"
    return (
        f"ECC {mode}; uncorrected errors {_count(ecc.uncorrected_volatile)} since the driver was loaded, "
        f"{_count(ecc.uncorrected_aggregate)} over the card's life; corrected "
        f"{_count(ecc.corrected_volatile)} and {_count(ecc.corrected_aggregate)}"
    )


def _count(number: int | None) -> str:
    return NOT_TOLD if number is None else str(number)


def _facts(ecc: EccReading) -> dict[str, Fact]:
    return {
        "is_ecc_enabled": ecc.is_enabled,
        "ecc_uncorrected_volatile": ecc.uncorrected_volatile,
        "ecc_uncorrected_aggregate": ecc.uncorrected_aggregate,
    }
