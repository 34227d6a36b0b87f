"""How far an experiment has come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from engine.lab.experiment import Experiment


class Step(StrEnum):
    """What is being done, in this order: the first two once, the others with every variant."""

    FETCHING = "fetching the model"
    STARTING = "starting torch"
    WAITING = "waiting for another model to load"
    LOADING = "loading"
    QUALITY = "predicting the text"
    ANSWERS = "answering the prompts"
    SPEED = "measuring speed"


# Where each step begins and ends in its variant's share, from SmolLM2 on two cores with the default plan.
_SPANS = {
    Step.FETCHING: (0.0, 0.0),
    Step.STARTING: (0.0, 0.0),
    Step.WAITING: (0.0, 0.0),
    Step.LOADING: (0.0, 0.1),
    Step.QUALITY: (0.1, 0.45),
    Step.ANSWERS: (0.45, 0.55),
    Step.SPEED: (0.55, 1.0),
}

# (step, its fraction or None, what exactly)
OnStep = Callable[[Step, float | None, str], None]


@dataclass(frozen=True, slots=True)
class LabProgress:
    """An experiment under way. `fraction` is of the step; None where it is not known. `index` counts the variants that
    have ended."""

    experiment: Experiment
    label: str
    index: int
    step: Step = Step.STARTING
    fraction: float | None = None
    detail: str = ""

    @property
    def num_variants(self) -> int:
        """The original among them."""
        return len(self.experiment.plan.all_variants())

    @property
    def ratio(self) -> float:
        """The share of the whole that is done, 0 to 1; it never falls. Loading has parts that each count from 0, so it
        counts as nothing until it is over; fetching, which may take any time, counts as nothing at all."""
        began, ended = _SPANS[self.step]
        fraction = 0.0 if self.step is Step.LOADING else self.fraction or 0.0
        return min(1.0, (self.index + began * (1 - fraction) + ended * fraction) / self.num_variants)
