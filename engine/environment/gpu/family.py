"""The checks of GPUs, put together: readings shared among them, one probe at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from engine.environment.check import Check, Finding, Shared
from engine.environment.context import CheckContext
from engine.environment.gpu.arch import judge_arch
from engine.environment.gpu.container import read_container
from engine.environment.gpu.cuda import read_compat_package
from engine.environment.gpu.devices import expect_devices, judge_devices, visible_gpus
from engine.environment.gpu.driver import judge_driver, read_host_gpus
from engine.environment.gpu.each import judge_each, plural, skip
from engine.environment.gpu.kernel import judge_kernel, skip_without_cuda
from engine.environment.gpu.links import judge_topology
from engine.environment.gpu.memory_errors import judge_ecc, judge_remapped_rows
from engine.environment.gpu.mig import judge_mig
from engine.environment.gpu.nccl import judge_all_reduce
from engine.environment.gpu.nodes import judge_nodes, node_names, read_nodes
from engine.environment.gpu.occupancy import judge_memory_in_use, read_own_bytes
from engine.environment.gpu.pcie import judge_pcie
from engine.environment.gpu.power import judge_persistence, judge_power_limit, judge_throttle
from engine.environment.gpu.probing import (
    ALL_REDUCE_TIMEOUT_S,
    KERNELS_TIMEOUT_S,
    SPEEDS_TIMEOUT_S,
    AllReduceReading,
    ProbeReading,
    read_all_reduce,
    read_probe,
)
from engine.environment.gpu.speed import judge_bandwidth, judge_flops
from engine.environment.gpu.torch_build import judge_torch
from engine.environment.python import TorchBuild, read_torch_build
from engine.telemetry.nvml import GpuHealth, GpuInventory, HealthInventory

_MARGIN_S = 10.0  # to end a probe and its workers
_KERNELS_S = KERNELS_TIMEOUT_S + _MARGIN_S
_SPEEDS_S = _KERNELS_S + SPEEDS_TIMEOUT_S + _MARGIN_S
_ALL_REDUCE_S = _SPEEDS_S + ALL_REDUCE_TIMEOUT_S + _MARGIN_S


@dataclass(frozen=True)
class Probes:
    """What touches the GPUs, and the installed torch: the parts that a test plays."""

    kernels: Callable[[], ProbeReading]
    speeds: Callable[[], ProbeReading]
    all_reduce: Callable[[int], AllReduceReading]
    torch_build: Callable[[], TorchBuild | None] = read_torch_build


def real_probes(cancelled: Event) -> Probes:
    """Probes that end at once when the run is cancelled: one left behind would be measured by the next run's."""
    return Probes(
        kernels=lambda: read_probe("kernels", KERNELS_TIMEOUT_S, cancelled),
        speeds=lambda: read_probe("speeds", SPEEDS_TIMEOUT_S, cancelled),
        all_reduce=lambda number: read_all_reduce(number, cancelled=cancelled),
    )


class _Readings:
    """One run's readings, each taken once. Probes wait for each other, so that none measures another's load."""

    def __init__(self, context: CheckContext, probes: Probes) -> None:
        self.inventory: Shared[GpuInventory] = Shared(context.nvml.read)
        self.health: Shared[HealthInventory] = Shared(context.nvml.read_health)
        self.host = Shared(lambda: read_host_gpus(context.root))
        self.build = Shared(probes.torch_build)
        self.kernels = Shared(probes.kernels)
        self.speeds = Shared(lambda: self._speeds(probes))
        self._probes = probes

    def why_no_probe(self) -> Finding | None:
        """The skip of a check that needs a GPU and a torch that can use it; None where there are both."""
        build = self.build()
        return skip_without_cuda(build.cuda_version if build else None, self.inventory().reason)

    def all_reduce(self) -> AllReduceReading:
        """After the other probes; over as many GPUs as torch sees."""
        self.speeds()
        return self._probes.all_reduce(len(self.kernels().gpus))

    def _speeds(self, probes: Probes) -> ProbeReading:
        """A GPU that computes nothing is not asked again."""
        kernels = self.kernels()
        return kernels if kernels.error is not None else probes.speeds()


def gpu_checks(context: CheckContext, probes: Probes | None = None) -> tuple[Check, ...]:
    """The checks of GPUs; without one they skip with the reason, and `gpu.devices` fails where one is required."""
    readings = _Readings(context, probes or real_probes(context.cancelled))
    return (*_driver_checks(context, readings), *_health_checks(readings), *_probe_checks(context, readings))


def _driver_checks(context: CheckContext, readings: _Readings) -> tuple[Check, ...]:
    profile, root = context.profile.gpu, context.root

    def check_nodes() -> Finding:
        host, reason = readings.host(), readings.inventory().reason
        if reason is not None and not host.cards and not host.is_module_loaded:
            return skip(reason)
        nodes = read_nodes(root, node_names(readings.health().gpus, host))
        can_make = shutil.which("nvidia-modprobe") is not None
        return judge_nodes(nodes, host, profile, does_driver_answer=reason is None, can_make=can_make)

    def check_devices() -> Finding:
        inventory = visible_gpus(readings.inventory(), os.environ.get("CUDA_VISIBLE_DEVICES"))
        return judge_devices(inventory, profile, read_container(root))

    def check_torch() -> Finding:
        cards = [gpu.is_data_center for gpu in readings.health().gpus]
        is_data_center = bool(cards) and all(cards)
        package = read_compat_package(root)
        return judge_torch(readings.build(), readings.inventory(), profile, package, is_data_center)

    cuda = f"{profile.cuda_min} or newer, " if profile.cuda_min else ""
    return (
        Check(
            "gpu.driver",
            "NVIDIA driver",
            "answers, where there is an NVIDIA GPU",
            lambda: judge_driver(readings.inventory(), readings.host(), profile),
        ),
        Check("gpu.device_nodes", "GPU device files", "there, and this user may open them", check_nodes),
        Check(
            "gpu.devices",
            "GPUs",
            expect_devices(profile),
            check_devices,
        ),
        Check("gpu.torch", "PyTorch and CUDA", f"built with CUDA, {cuda}that the driver runs", check_torch),
    )


def _health_checks(readings: _Readings) -> tuple[Check, ...]:
    def each(judge: Callable[[GpuHealth], Finding]) -> Callable[[], Finding]:
        def run() -> Finding:
            health = readings.health()
            return skip(health.reason) if health.reason is not None else judge_each(health.gpus, judge)

        return run

    def check_memory() -> Finding:
        health = readings.health()
        return skip(health.reason) if health.reason is not None else judge_memory_in_use(health, read_own_bytes())

    return (
        Check("gpu.ecc", "GPU memory errors", "ECC on, no uncorrected error", each(judge_ecc)),
        Check("gpu.remapped_rows", "GPU memory rows", "no replacement pending or failed", each(judge_remapped_rows)),
        Check("gpu.throttle", "GPU throttling", "no heat or hardware slowdown", each(judge_throttle)),
        Check("gpu.power_limit", "GPU power limit", "the card's default", each(judge_power_limit)),
        Check("gpu.persistence", "GPU persistence mode", "on, on data-center cards", each(judge_persistence)),
        Check("gpu.pcie", "GPU PCIe link", "as wide as possible, and as fast when busy", each(judge_pcie)),
        Check("gpu.mig", "GPU instances (MIG)", "off: a whole card", each(judge_mig)),
        Check("gpu.memory_in_use", "GPU memory held by others", "at most 5 % of a card", check_memory),
    )


def _probe_checks(context: CheckContext, readings: _Readings) -> tuple[Check, ...]:
    profile, ratio = context.profile.gpu, f"{context.profile.gpu.measured_ratio_min:.0%}"

    def probed(judge: Callable[[], Finding]) -> Callable[[], Finding]:
        return lambda: readings.why_no_probe() or judge()

    def check_topology() -> Finding:
        num_gpus = len(readings.health().gpus)
        if num_gpus == 1:
            return skip("one GPU only, so there is no link to tell")
        return judge_topology(context.nvml.read_topology(), readings.health().gpus)

    def check_all_reduce() -> Finding:
        num_gpus = len(readings.inventory().gpus)
        if num_gpus < 2:
            return skip(f"{plural(num_gpus, 'GPU')} only: an all-reduce needs two")
        kernels = readings.kernels()
        if kernels.error is not None or len(kernels.gpus) < 2:
            return skip(f"torch sees {plural(len(kernels.gpus), 'GPU')}: {kernels.error or 'an all-reduce needs two'}")
        return judge_all_reduce(readings.all_reduce())

    def check_bandwidth() -> Finding:
        health = {gpu.uuid: gpu for gpu in readings.health().gpus}
        return judge_bandwidth(readings.speeds(), readings.inventory(), health, profile)

    return (
        Check("gpu.topology", "Links between GPUs", "told; the same for all", check_topology),
        Check(
            "gpu.arch",
            "PyTorch's GPU architectures",
            "code for each GPU",
            probed(lambda: judge_arch(readings.kernels(), profile)),
            _KERNELS_S,
        ),
        Check(
            "gpu.kernel",
            "Kernels on each GPU",
            "matrix products that equal the CPU's",
            probed(lambda: judge_kernel(readings.kernels(), readings.inventory(), profile)),
            _KERNELS_S,
        ),
        Check(
            "gpu.bandwidth",
            "GPU memory and link speed",
            f"at least {ratio} of what the card and its link are known to reach",
            probed(check_bandwidth),
            _SPEEDS_S,
            is_deep=True,
        ),
        Check(
            "gpu.tflops",
            "GPU arithmetic speed",
            f"at least {ratio} of what the card is known to reach",
            probed(lambda: judge_flops(readings.speeds(), readings.inventory(), profile)),
            _SPEEDS_S,
            is_deep=True,
        ),
        Check(
            "gpu.nccl",
            "All-reduce over the GPUs (NCCL)",
            "the right sum, where there are several GPUs",
            probed(check_all_reduce),
            _ALL_REDUCE_S,
            is_deep=True,
        ),
    )
