"""Does a container really run."""

from __future__ import annotations

from engine.deploy.trial import TRIAL_MEMORY_BYTES, Trial, TrialOutcome
from engine.environment.check import CheckStatus, Finding, severity
from engine.environment.profile import ContainersProfile

_LIMITS = f"--network none --read-only --memory {TRIAL_MEMORY_BYTES // 2**20}m"


def judge_trial(trial: Trial, profile: ContainersProfile) -> Finding:
    """Skip without an image to try; a container that does not start fails where containers are required."""
    if trial.outcome is TrialOutcome.NO_IMAGE:
        return Finding(CheckStatus.SKIP, "there is no tagged image under 2 GB to try, and none is pulled")
    facts = {"outcome": trial.outcome.value}
    if trial.outcome is TrialOutcome.RAN:
        return Finding(CheckStatus.PASS, f"`true` ran in {trial.image} ({_LIMITS})", facts=facts)
    if trial.outcome is TrialOutcome.NO_COMMAND:
        return Finding(CheckStatus.PASS, f"the runtime works; {trial.image} has no `true` to run", facts=facts)
    command = f"docker run --rm {_LIMITS} --entrypoint true {trial.image or 'IMAGE'}"
    remedy = f"Repeat it with `{command}` and read `journalctl -u docker -u containerd -n 50`."
    return Finding(severity(profile.required), f"{trial.image or 'the engine'}: {trial.detail}", remedy, facts)
