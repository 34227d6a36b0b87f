"""A route: one public name for a set of instances, and how requests are divided among them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from engine.errors import InvalidRequestError
from engine.scheduling.router.candidate import Precision

# The model name that any instance may answer.
AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Target:
    """An instance by name, and its share of the requests against the sum of all weights."""

    instance: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Route:
    """A route may have an instance's own name: whoever asks for that name is then routed.

    Attributes:
        fallbacks: instances asked, in this order, when no target can answer.
        is_weighted: divide by weight, as for a canary; otherwise the least busy target answers.
        is_sticky: a conversation stays with its target while that can answer.
    """

    name: str
    targets: tuple[Target, ...]
    fallbacks: tuple[str, ...] = ()
    is_weighted: bool = False
    is_sticky: bool = True

    @property
    def members(self) -> tuple[str, ...]:
        """All instances that it names, targets first."""
        return (*(target.instance for target in self.targets), *self.fallbacks)

    def check(self) -> None:
        """Raise InvalidRequestError naming the first value that makes no sense."""
        if not self.name.strip() or self.name != self.name.strip():
            raise InvalidRequestError(f"the route's name is {self.name!r}: give it one without space around it", "name")
        if split_precision(self.name)[0] == AUTO or split_precision(self.name)[1] is not None:
            raise InvalidRequestError(
                f"a route cannot be named {self.name!r}: `{AUTO}` and the endings `:quality`, `:balanced` and `:fast` "
                "have a meaning already; choose another name",
                "name",
            )
        if not self.targets:
            raise InvalidRequestError(f"route {self.name!r} has no target: choose at least one instance", "targets")
        self._check_names()
        self._check_weights()

    def _check_names(self) -> None:
        names = Counter(self.members)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise InvalidRequestError(
                f"route {self.name!r} names {twice[0]!r} twice: an instance is a target or a fallback, once", "targets"
            )

    def _check_weights(self) -> None:
        for target in self.targets:
            if not (math.isfinite(target.weight) and target.weight >= 0):
                raise InvalidRequestError(
                    f"the weight of {target.instance!r} is {target.weight:g}; it must be a number from 0 up", "weight"
                )
        if self.is_weighted and not any(target.weight > 0 for target in self.targets):
            raise InvalidRequestError(
                f"all weights of route {self.name!r} are 0, so nothing would answer: give one target a weight above 0",
                "weight",
            )


def split_precision(model: str) -> tuple[str, Precision | None]:
    """`chat:fast` as (`chat`, fast); a name without such an ending as it is."""
    name, _, ending = model.rpartition(":")
    if name and ending in tuple(Precision):
        return name, Precision(ending)
    return model, None
