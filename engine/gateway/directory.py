"""Who can be asked: local and remote instances under one roof, and the routes over them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from engine.clock import Clock
from engine.engine import Engine
from engine.errors import ConsoleError, InstanceNotFoundError
from engine.gateway.reading import local_candidate, remote_candidate
from engine.gateway.routes import Routes
from engine.gateway.standings import Standings
from engine.inference.outputs import OutputStream
from engine.inference.request import Request, Timing
from engine.instance import InstanceState
from engine.remote import RemoteInfo, Remotes
from engine.scheduling.router import AUTO, Candidate, Precision, Route, Target, split_precision


class Directory:
    """Names and what they stand for. A local instance hides a remote one of its name, a route both."""

    def __init__(
        self, engine: Callable[[], Engine], remotes: Remotes, routes: Routes, standings: Standings, clock: Clock
    ) -> None:
        self._engine = engine
        self._remotes = remotes
        self._routes = routes
        self._standings = standings
        self._clock = clock

    def candidates(self) -> tuple[Candidate, ...]:
        """Every instance as the router sees it now."""
        found: dict[str, Candidate] = {}
        for local in self._engine().serving():
            standing = self._standings.recent(local.name), self._standings.breaker(local.name)
            found[local.name] = local_candidate(local, *standing)
        for remote in self._remotes.infos():
            if remote.name not in found:
                standing = self._standings.recent(remote.name), self._standings.breaker(remote.name)
                found[remote.name] = remote_candidate(remote, *standing)
        return tuple(found.values())

    def find_route(self, model: str, candidates: Sequence[Candidate]) -> tuple[Route, Precision | None]:
        """The route that a request for `model` takes: one by that name, an instance as a route to itself, or `auto` as
        one to all; the same for a name that ends in a precision.

        Raises:
            InstanceNotFoundError: there is none.
        """
        return self._find_route(model, [candidate.name for candidate in candidates])

    def _find_route(self, model: str, instances: Sequence[str]) -> tuple[Route, Precision | None]:
        for name, precision in ((model, None), split_precision(model)):
            if (found := self._routes.find(name) or _own_route(name, instances)) is not None:
                return found, precision
        known = ", ".join([*(by.name for by in self._routes.all()), *instances]) or "none"
        raise InstanceNotFoundError(f"there is no model named {model!r}; loaded: {known}")

    def identity(self, model: str) -> Hashable | None:
        """What stands behind a name now: the route, and which version of which instance can answer for it. Another one
        after anything of that was loaded, swapped, ended, or changed; None where nobody can answer.

        Of a server elsewhere it is what the operator says of it: what changes there unseen does not show."""
        there = {remote.name: _remote_identity(remote) for remote in self._remotes.infos()}
        all_ids: dict[str, Hashable] = {**there, **self._engine().generations()}  # a local one hides a remote one
        try:
            by, precision = self._find_route(model, list(all_ids))
        except InstanceNotFoundError:
            return None
        ready = tuple((name, all_ids[name]) for name in by.members if all_ids.get(name) is not None)
        return (by, precision, ready) if ready else None

    def names(self) -> tuple[str, ...]:
        """What can be asked for now: routes with somebody to answer, instances that are ready, and `auto` where there
        is a choice."""
        ready = [candidate.name for candidate in self.candidates() if candidate.why_not_ready is None]
        routes = [by.name for by in self._routes.all() if not set(ready).isdisjoint(by.members)]
        names = list(dict.fromkeys([*routes, *ready]))
        return (*names, AUTO) if len(names) > 1 else tuple(names)

    def local_name(self, model: str) -> str:
        """The first local instance of the route that `model` takes, one that is ready before others.

        Raises:
            InstanceNotFoundError: there is none.
        """
        candidates = self.candidates()
        by, _ = self.find_route(model, candidates)
        local = [one for one in candidates if one.name in by.members and not one.is_remote]
        if not local:
            raise InstanceNotFoundError(
                f"{model!r} is served elsewhere, and this is done by local instances only: ask that server itself"
            )
        return min(local, key=lambda one: (one.why_not_ready is not None, by.members.index(one.name))).name

    def submit(self, request: Request, *, is_remote: bool) -> OutputStream:
        """Send a request to the instance that its model names. Raises what its kind does, after it was recorded."""
        if not is_remote:
            return self._engine().stream(request)
        timing = Timing(self._clock.wall(), self._clock.monotonic())
        try:
            return self._remotes.find(request.model).submit(request, timing)
        except ConsoleError as error:
            self._engine().note_refusal(request, error)
            raise


def _remote_identity(remote: RemoteInfo) -> Hashable | None:
    return remote.spec if remote.state is InstanceState.READY else None


def _own_route(name: str, instances: Sequence[str]) -> Route | None:
    if name in instances:
        return Route(name, (Target(name),))
    return Route(AUTO, tuple(Target(one) for one in instances)) if name == AUTO else None
