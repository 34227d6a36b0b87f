"""Making room for a model by unloading idle ones: asks the planner, lets a pure function choose, and carries it out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.errors import WeightsError
from engine.instance import InstanceInfo, InstanceState, Role
from engine.models.spec import ModelInfo, ModelSpec
from engine.scheduling.unloading import Resident, Room, RoomPlanner, choose_to_unload

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unloaded:
    """A model that had to go for another one. `spec` loads it again; `at_s` is in seconds since the epoch, and
    `idle_s` says for how long nobody had used it then."""

    name: str
    spec: ModelSpec
    made_room_for: str
    at_s: float
    idle_s: float
    held_bytes: int


def make_room(
    spec: ModelSpec,
    fits: RoomPlanner,
    read_instances: Callable[[], Sequence[InstanceInfo]],
    unload_if_idle: Callable[[str], bool],
    report: Callable[[str, float | None], None],
    now_s: Callable[[], float],
    on_unload: Callable[[Unloaded], None],
) -> None:
    """Unload idle models, least recently used first, until `spec` fits by the plan, and tell `on_unload` of each. The
    plan is asked again after each round, because what comes back is measured and not assumed.

    Raises:
        WeightsError: it does not fit, and unloading all that may be unloaded would not help.
    """
    report("planning memory", None)
    while (room := fits(spec)) is not None and room.needed_bytes > room.free_bytes:
        infos = read_instances()
        residents = residents_of(infos, room.device, spec.name)
        choice = choose_to_unload(residents, room.needed_bytes, room.free_bytes, now_s())
        if not choice.is_enough:
            raise WeightsError(_no_room(room, choice.reasons))
        for name in choice.names:
            report(f"unloading {name} to make room", None)
            if unload_if_idle(name):
                logger.info("%s was unloaded to make room for %s: %s", name, spec.name, "; ".join(choice.reasons))
                on_unload(_unloaded(name, spec, infos, residents, now_s()))


def _unloaded(
    name: str, coming: ModelSpec, infos: Sequence[InstanceInfo], residents: Sequence[Resident], now_s: float
) -> Unloaded:
    spec = next(info.spec for info in infos if info.name == name and info.role is Role.SERVING)
    resident = next(item for item in residents if item.name == name)
    idle_s = max(0.0, now_s - resident.last_used_s)
    return Unloaded(name, spec, coming.name or coming.source, now_s, idle_s, resident.held_bytes)


def residents_of(infos: Iterable[InstanceInfo], device: str, coming: str | None) -> list[Resident]:
    """The models that hold memory of `device`, with what is known of their use. `coming` is the name that is being
    loaded: its own serving version, if it has one, is not unloaded for its next one."""
    read = list(infos)
    swapped = {info.name for info in read if info.role is not Role.SERVING} | {coming}
    return [
        _resident(info, info.model, info.name in swapped)
        for info in read
        if info.role is Role.SERVING and info.model is not None and info.model.device == device
    ]


def _resident(info: InstanceInfo, model: ModelInfo, is_swapped: bool) -> Resident:
    state = None if info.state is InstanceState.READY else f"it is {info.state}"
    return Resident(
        name=info.name,
        held_bytes=model.weights_bytes,
        num_requests=0 if info.stats is None else info.stats.num_running + info.stats.num_waiting,
        last_used_s=info.since_s if info.last_used_s is None else info.last_used_s,
        is_pinned=info.is_pinned,
        why_not="a next version of it is loading" if is_swapped else state,
    )


def _no_room(room: Room, reasons: Sequence[str]) -> str:
    needed, free = room.needed_bytes / 1e9, room.free_bytes / 1e9
    tried = f" ({'; '.join(reasons)})" if reasons else ""
    return (
        f"it needs {needed:.2f} GB on {room.device} and {free:.2f} GB are free, also after unloading idle models"
        f"{tried}: unload one by hand, or ask for quantized weights, a shorter context or fewer running requests"
    )
