"""A container really run: the one proof that the engine, its runtime and the kernel work together."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from engine.deploy.docker import (
    ENGINE_ERRORS,
    TIMEOUT_S,
    TRIAL_LABEL,
    Connect,
    connect_docker,
    explain,
    open_engine,
)

TRIAL_MEMORY_BYTES = 64 * 2**20
# A start takes well under a second on a healthy machine; on one that is busy, or with a cold disk, several.
BUDGET_S = 20.0
_LEAST_S = 0.1
_STALE_AFTER_S = 60.0
_LARGE_BYTES = 2 * 10**9
_MAX_TRIED = 3


class TrialOutcome(StrEnum):
    """How the trial ended. In `NO_COMMAND` the runtime worked, and none of the images tried has a `true`."""

    RAN = "ran"
    NO_COMMAND = "no command"
    NO_IMAGE = "no image"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One trial; `image` is what the last container was made of, `detail` the engine's words."""

    outcome: TrialOutcome
    image: str | None = None
    detail: str = ""


def run_trial(address: str | None = None, connect: Connect = connect_docker) -> Trial:
    """Run `true` in a container of a small image here: no network, read-only, 64 MB, and taken away again.

    Nothing is pulled, and no image of 2 GB or more is used. Of the three smallest, Kubernetes's pause image last,
    the first with a `true` decides. It takes 20 s at most, and 2 s more to take the container away.
    Trial containers that a killed process left behind over a minute ago are taken away too.
    """
    deadline_s = time.monotonic() + BUDGET_S
    try:
        with open_engine(address, connect) as client:
            _remove_stale(client.api, deadline_s)
            trial = Trial(TrialOutcome.NO_IMAGE)
            for image in _small_images(client.api):
                trial = _try_image(client.api, image, deadline_s)
                if trial.outcome is not TrialOutcome.NO_COMMAND:
                    break
            return trial
    except ENGINE_ERRORS as error:
        return Trial(TrialOutcome.FAILED, detail=explain(error))


def _remove_stale(api: Any, deadline_s: float) -> None:
    for entry in api.containers(all=True, filters={"label": TRIAL_LABEL}):
        if time.time() - entry["Created"] > _STALE_AFTER_S and time.monotonic() < deadline_s:
            _remove(api, entry["Id"])


def _remove(api: Any, container_id: str) -> None:
    api.timeout = TIMEOUT_S
    try:
        api.remove_container(container_id, force=True, v=True)
    except ENGINE_ERRORS as error:
        if getattr(error, "status_code", None) not in (404, 409):  # another is taking it away, or has
            raise


def _small_images(api: Any) -> list[str]:
    sized = [(image["Size"], tag) for image in api.images() for tag in (image.get("RepoTags") or ())[:1]]
    usable = [(size, tag) for size, tag in sized if size < _LARGE_BYTES and tag != "<none>:<none>"]
    # Kubernetes's pause image is the smallest on every node and holds one program, which is not `true`.
    return [tag for _, tag in sorted(usable, key=lambda image: ("pause" in image[1], image))][:_MAX_TRIED]


def _try_image(api: Any, image: str, deadline_s: float) -> Trial:
    """All calls but the last share the time until `deadline_s`; the SDK's `start` takes no limit of its own."""
    limits = api.create_host_config(
        network_mode="none",
        mem_limit=TRIAL_MEMORY_BYTES,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        pids_limit=16,
    )
    labels = {TRIAL_LABEL: "true"}
    api.timeout = _left_s(deadline_s)
    container_id = api.create_container(image, entrypoint=["true"], labels=labels, host_config=limits)["Id"]
    try:
        api.timeout = _left_s(deadline_s)
        api.start(container_id)
        code = int(api.wait(container_id, timeout=_left_s(deadline_s))["StatusCode"])
    except ENGINE_ERRORS as error:
        is_missing = re.search(r"executable file not found|no such file or directory", explain(error))
        return Trial(TrialOutcome.NO_COMMAND if is_missing else TrialOutcome.FAILED, image, explain(error))
    finally:
        _remove(api, container_id)
    return Trial(TrialOutcome.RAN if code == 0 else TrialOutcome.FAILED, image, f"exit code {code}")


def _left_s(deadline_s: float) -> float:
    return max(_LEAST_S, deadline_s - time.monotonic())
