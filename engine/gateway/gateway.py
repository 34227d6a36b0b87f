"""From a model's name to an instance that answers, and on to the next one when that fails."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

from engine.clock import Clock
from engine.engine import Engine, RequestInfo
from engine.errors import (
    ConsoleError,
    ContextLengthError,
    InstanceNotFoundError,
    InstanceNotReadyError,
    InvalidRequestError,
    QueueFullError,
    WorkerDiedError,
)
from engine.gateway.answer_key import is_deterministic
from engine.gateway.cache import CacheRules, ResponseCache
from engine.gateway.directory import Directory
from engine.gateway.flight import SharedStream
from engine.gateway.memory import Decided, Memory, Origin
from engine.gateway.reading import to_ask, turns_of
from engine.gateway.routes import Routes
from engine.gateway.standings import Recent, Standings
from engine.gateway.stream import RoutedStream, Sent
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.request import Finished, Request
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.remote import Remotes
from engine.scheduling.router import (
    Ask,
    BreakerRules,
    BreakerState,
    Candidate,
    Cause,
    Decision,
    Feature,
    Route,
    route,
)
from engine.scheduling.router.affinity import conversation_key, prefix_hashes

MAX_TRIES = 4
# What may go better elsewhere. A prompt too long for one instance may fit into another.
_ELSEWHERE = (InstanceNotReadyError, InstanceNotFoundError, QueueFullError, ContextLengthError, WorkerDiedError)
_CANNOT = frozenset({Cause.FEATURE, Cause.CONTEXT})


@dataclass
class _Plan:
    """A request on its way to an instance. `failed` are those that were asked in vain, and why."""

    request: Request
    by: Route
    ask: Ask
    origin: Origin
    received_s: float
    failed: dict[str, str] = field(default_factory=dict)


class Gateway:
    """What pages and API send requests through. Any thread may call.

    `engine` gives the engine that is in charge of local instances.

    Attributes:
        cache: the answers that are kept; none unless `kept` says so.
    """

    def __init__(
        self,
        engine: Callable[[], Engine],
        remotes: Remotes,
        routes: Routes,
        clock: Clock,
        rules: BreakerRules | None = None,
        kept: CacheRules | None = None,
    ) -> None:
        self.remotes = remotes
        self.routes = routes
        self._engine = engine
        self._clock = clock
        self._standings = Standings(clock, rules or BreakerRules())
        self._directory = Directory(engine, remotes, routes, self._standings, clock)
        self._memory = Memory()
        self.cache = ResponseCache(
            kept or CacheRules(),
            clock,
            lambda request, finished: engine().note_served(request, finished),
            self.note_refusal,
        )

    def stream(self, request: Request) -> RoutedStream | SharedStream:
        """Send a request to the instance that fits best, and return its events as they are produced. As long as none
        was read, a failure has the next instance asked. Closing the stream cancels the request.

        A deterministic request that says `is_cacheable` is answered from the cache, where that is on.

        Raises:
            InvalidRequestError: a parameter is out of bounds, or no instance can do what is asked.
            InstanceNotFoundError: there is neither a route nor an instance of that name.
            InstanceNotReadyError, QueueFullError: none of them can answer now.
        """
        if self.cache.is_on and request.is_cacheable and is_deterministic(request):
            identity = self.identity(request.model)
            if identity is not None:
                return self.cache.stream(request, identity, lambda: self._route(request))
        return self._route(request)

    def identity(self, model: str) -> Hashable | None:
        """What stands behind a name now; None where nobody can answer. See `Directory.identity`."""
        return self._directory.identity(model)

    def _route(self, request: Request) -> RoutedStream:
        candidates = self.candidates()
        try:
            request.check()
            plan = self._plan(request, candidates)
        except ConsoleError as error:
            self._engine().note_refusal(request, error)
            raise
        return RoutedStream(
            self._send(plan, candidates), lambda sent, end: self._send_on(plan, sent, end), self._note_end
        )

    def embed(self, request: EmbeddingRequest) -> EmbeddingJob:
        """Queue texts to be embedded; by a local instance, as a remote one's embeddings are asked for there.

        Raises:
            InstanceNotFoundError: there is no local instance by that name or behind that route.
            InvalidRequestError, InstanceNotReadyError, QueueFullError: see `Engine.embed`.
        """
        return self._engine().embed(replace(request, model=self._directory.local_name(request.model)))

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of a text or of messages, by a local instance. Raises as `embed` does."""
        return self._engine().tokenize(replace(request, model=self._directory.local_name(request.model)))

    def detokenize(self, model: str, token_ids: tuple[int, ...]) -> str:
        """The text of a model's tokens, by a local instance. Raises as `embed` does."""
        return self._engine().detokenize(self._directory.local_name(model), token_ids)

    def note_refusal(self, request: Request | EmbeddingRequest, error: ConsoleError) -> None:
        """Record a request that was refused before it came here, for a quota say."""
        self._engine().note_refusal(request, error)

    def decide(self, ask: Ask) -> Decision:
        """What would be decided for this request now; nothing is sent or remembered.

        Raises:
            InstanceNotFoundError: there is neither a route nor an instance of that name.
        """
        candidates = self.candidates()
        by, precision = self._directory.find_route(ask.model, candidates)
        asked = replace(ask, precision=precision or ask.precision)
        return route(asked, candidates, by, self._clock.monotonic())

    def candidates(self) -> tuple[Candidate, ...]:
        """Every instance as the router sees it now, local ones first."""
        return self._directory.candidates()

    def names(self) -> tuple[str, ...]:
        """The models that can be asked for now: routes, instances, and `auto`."""
        return self._directory.names()

    def recent(self, name: str) -> Recent:
        """How an instance did in the last five minutes."""
        return self._standings.recent(name)

    def breaker_state(self, name: str) -> BreakerState:
        """Where an instance's breaker stands."""
        return self._standings.breaker(name).state(self._clock.monotonic())

    def decisions(self, limit: int = 20) -> tuple[Decided, ...]:
        """The last decisions, newest first."""
        return self._memory.decisions(limit)

    def requests(self) -> tuple[RequestInfo, ...]:
        """The requests waiting and running now, here and at remote instances."""
        return (*self._engine().requests(), *self.remotes.requests())

    def cancel(self, request_id: str) -> bool:
        """Cancel a request; False when it is not here."""
        return self._engine().cancel(request_id) or self.remotes.cancel(request_id)

    def remove_remote(self, name: str) -> None:
        """Cancel a remote instance's requests and forget it, with its key and how it did.

        Raises:
            InstanceNotFoundError: there is none of that name.
            StoreError: it cannot be forgotten.
        """
        self.remotes.remove(name)
        self._standings.forget(name)

    def close(self) -> None:
        """Cancel the requests at remote instances, and those that several read."""
        self.cache.close()
        self.remotes.close()

    def _plan(self, request: Request, candidates: Sequence[Candidate]) -> _Plan:
        by, precision = self._directory.find_route(request.model, candidates)
        turns = turns_of(request)
        origin = Origin(by.name, conversation_key(turns), prefix_hashes(turns))
        ask = to_ask(request, precision, origin.conversation if by.is_sticky else request.request_id)
        return _Plan(request, by, ask, origin, self._clock.monotonic())

    def _send(self, plan: _Plan, candidates: Sequence[Candidate]) -> Sent:
        """Send it to the best instance that takes it, as `candidates` are at first.

        Raises:
            ConsoleError: none does: what the first of them said, or why none was asked.
        """
        first: ConsoleError | None = None
        for _ in range(MAX_TRIES):
            decision = self._decide(plan, candidates)
            asked = _find(candidates, decision.instance) or _sole_local(plan, candidates)
            if asked is None:
                raise first or self._refuse(plan, decision)
            try:
                return self._send_to(asked, plan, is_chosen=decision.instance is not None)
            except _ELSEWHERE as error:
                plan.failed[asked.name] = str(error)
                first = first or error
                candidates = self.candidates()
        raise first or InstanceNotReadyError(f"{MAX_TRIES} instances were asked for {plan.ask.model!r} in vain")

    def _refuse(self, plan: _Plan, decision: Decision) -> ConsoleError:
        """The error of a request that nobody was asked to answer, after it was recorded."""
        error = _refusal(decision)
        images = plan.request.images
        if images and isinstance(error, InvalidRequestError) and error.param == "model" and _all_lack_images(decision):
            error.param = images[0].place
        self._engine().note_refusal(plan.request, error)
        return error

    def _send_on(self, plan: _Plan, sent: Sent, finished: Finished) -> Sent | None:
        """After a failure: the next instance's stream; None where the failure stands."""
        failure = finished.failure()
        if not isinstance(failure, _ELSEWHERE) or len(plan.failed) >= MAX_TRIES:
            return None
        plan.failed[sent.instance] = str(failure)
        try:
            return self._send(plan, self.candidates())
        except ConsoleError:
            return None

    def _decide(self, plan: _Plan, candidates: Sequence[Candidate]) -> Decision:
        began_s = self._clock.monotonic()
        history = self._memory.history(plan.origin, plan.by.members, plan.failed)
        decision = route(plan.ask, candidates, plan.by, began_s, history)
        took_s = self._clock.monotonic() - began_s
        self._memory.note_decision(Decided(self._clock.wall(), plan.request.request_id, decision, took_s))
        return decision

    def _send_to(self, asked: Candidate, plan: _Plan, *, is_chosen: bool) -> Sent:
        was_trial = self._standings.begin(asked.name, is_chosen=is_chosen)
        try:
            stream = self._directory.submit(self._request_to(asked.name, plan), is_remote=asked.is_remote)
        except BaseException:
            self._standings.end(asked.name, None, was_trial=was_trial)
            raise
        self._memory.note_sent(plan.origin, asked.name)
        return Sent(asked.name, stream, was_trial)

    def _request_to(self, name: str, plan: _Plan) -> Request:
        """As the instance knows it; time that another one took in vain counts."""
        timeout_s = plan.request.timeout_s
        if timeout_s is not None and plan.failed:
            timeout_s = max(timeout_s - (self._clock.monotonic() - plan.received_s), 1e-3)
        return replace(plan.request, model=name, timeout_s=timeout_s)

    def _note_end(self, sent: Sent, finished: Finished | None) -> None:
        self._standings.end(sent.instance, finished, was_trial=sent.was_trial)


def _find(candidates: Sequence[Candidate], name: str | None) -> Candidate | None:
    return next((candidate for candidate in candidates if candidate.name == name), None)


def _sole_local(plan: _Plan, candidates: Sequence[Candidate]) -> Candidate | None:
    """A local instance that alone goes by the name that was asked for: its own error says best why it cannot answer,
    and where it just became able to, it does."""
    if plan.failed or len(plan.by.members) != 1:
        return None
    only = _find(candidates, plan.by.members[0])
    return None if only is None or only.is_remote else only


def _all_lack_images(decision: Decision) -> bool:
    return all(verdict.cause is Cause.FEATURE and Feature.IMAGES in verdict.reason for verdict in decision.verdicts)


def _refusal(decision: Decision) -> ConsoleError:
    """Why nobody was asked, as an error: the client's where no instance could ever do it, else the time's."""
    causes = {verdict.cause for verdict in decision.verdicts}
    why = "; ".join(f"{verdict.instance}: {verdict.reason}" for verdict in decision.verdicts) or "nothing is loaded"
    message = f"nothing can answer for {decision.model!r} now ({why}): try again later, or ask for another model"
    if causes and causes <= {Cause.CONTEXT}:
        return ContextLengthError(f"the request is too long for {decision.model!r} ({why}): shorten it", "messages")
    if causes and causes <= _CANNOT:
        return InvalidRequestError(f"nothing behind {decision.model!r} can do what is asked ({why})", "model")
    return QueueFullError(message) if Cause.FULL in causes else InstanceNotReadyError(message)
