"""One remote instance: its state by regular checks, and the requests that it is answering."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.clock import Clock
from engine.engine import RequestInfo
from engine.errors import ConsoleError, InstanceNotReadyError, InvalidRequestError, QueueFullError
from engine.inference.outputs import OutputStream
from engine.inference.request import Finished, FinishReason, Request, Timing
from engine.instance import InstanceState
from engine.loop_thread import LoopThread
from engine.remote.answer import RemoteAnswer
from engine.remote.server import RemoteServer
from engine.remote.spec import RemoteSpec

logger = logging.getLogger(__name__)

OnFinish = Callable[[Request, Finished], None]
# A busy server may miss one check; one that is gone misses two.
_MISSED_CHECKS = 2


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """A reading of a remote instance; the states are those of a local one, without loading.

    Attributes:
        reason: why it failed, None otherwise.
        since_s, checked_at_s: seconds since the epoch; None before the first check.
        check_s: how long the last check took.
        context_length: as the operator says, else as the server does.
    """

    spec: RemoteSpec
    state: InstanceState
    reason: str | None
    since_s: float
    num_running: int
    checked_at_s: float | None = None
    check_s: float | None = None
    context_length: int | None = None

    @property
    def name(self) -> str:
        return self.spec.name


class RemoteInstance:
    """All public methods may be called from any thread; requests and checks run on `loop`."""

    def __init__(
        self,
        spec: RemoteSpec,
        read_key: Callable[[], str | None],
        loop: LoopThread,
        clock: Clock,
        timeout_s: float,
        on_finish: OnFinish,
    ) -> None:
        self.spec = spec
        self._read_key = read_key
        self._loop = loop
        self._clock = clock
        self._timeout_s = timeout_s
        self._on_finish = on_finish
        self._lock = threading.Lock()
        self._answers: dict[str, RemoteAnswer] = {}
        self._tasks: dict[str, asyncio.Task[Finished]] = {}
        self._server: RemoteServer | None = None
        self._num_missed = 0
        self._info = RemoteInfo(spec, InstanceState.PENDING, None, clock.wall(), 0, context_length=spec.context_length)
        self._is_closed = False
        self._watching = loop.run(self._watch())

    def info(self) -> RemoteInfo:
        """A reading."""
        return replace(self._info, num_running=len(self._answers))

    def submit(self, request: Request, timing: Timing) -> OutputStream:
        """Send a request on, and return its stream at once.

        Raises:
            InstanceNotReadyError: its last check failed, or there was none yet.
            QueueFullError: as many requests as it may have are under way.
            InvalidRequestError: a request of the same id is.
        """
        info = self._info
        if info.state is not InstanceState.READY:
            because = f": {info.reason}" if info.reason else ""
            raise InstanceNotReadyError(f"{self.spec.name} is {info.state}{because}; try again when it is ready")
        server = self._connected()
        answer = RemoteAnswer(
            request, timing, self._clock, server.new_reader(), lambda: self._loop.call(lambda: self._cancel(answer))
        )
        with self._lock:
            if request.request_id in self._answers:
                raise InvalidRequestError(
                    f"request_id {request.request_id} is running already: give each request its own", "request_id"
                )
            if len(self._answers) >= self.spec.max_running:
                raise QueueFullError(
                    f"{self.spec.name} has {self.spec.max_running} requests under way, which is all it may have: try "
                    "again in a moment"
                )
            self._answers[request.request_id] = answer
        self._loop.call(lambda: self._begin(answer, server))
        return answer.stream

    def cancel(self, request_id: str) -> bool:
        """Cancel a request that is here; False when it is not."""
        with self._lock:
            answer = self._answers.get(request_id)
        if answer is not None:
            answer.stream.close()
        return answer is not None

    def requests(self) -> list[RequestInfo]:
        """The requests under way."""
        now_s = self._clock.monotonic()
        with self._lock:
            answers = list(self._answers.values())
        return [
            RequestInfo(
                request_id=answer.request.request_id,
                model=self.spec.name,
                source=answer.request.source,
                key_id=answer.request.key_id,
                is_running=True,
                age_s=now_s - answer.timing.received_s,
                num_prompt_tokens=0,
                num_output_tokens=answer.num_output_tokens,
            )
            for answer in answers
        ]

    async def check(self) -> None:
        """Ask it for its models now, and note the state that follows."""
        began_s = self._clock.monotonic()
        try:
            async with asyncio.timeout(self.spec.check_timeout_s):
                models = await self._connected().list_models()
        except TimeoutError:
            self._num_missed += 1
            if self._num_missed >= _MISSED_CHECKS or self._info.state is not InstanceState.READY:
                self._enter(f"{self.spec.name} did not answer a check within {self.spec.check_timeout_s:g} s", began_s)
            return
        except ConsoleError as error:
            self._enter(str(error), began_s)
            return
        self._num_missed = 0
        found = next((model for model in models if model.id == self.spec.model), None)
        if found is None:
            known = ", ".join(model.id for model in models[:5]) or "none"
            self._enter(f"{self.spec.name} offers no model {self.spec.model!r}: it has {known}", began_s)
        else:
            self._enter(None, began_s, found.context_length)

    async def close(self) -> None:
        """End its checks and its requests, and close its connections."""
        self._is_closed = True
        self._watching.cancel()
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        if self._server is not None:
            await self._server.close()

    async def _watch(self) -> None:
        while not self._is_closed:
            try:
                await self.check()
            except Exception as error:
                logger.exception("a check of %s failed", self.spec.name)
                self._enter(f"the check failed ({type(error).__name__}): the log has more", self._clock.monotonic())
            await asyncio.sleep(self.spec.check_every_s)

    def _enter(self, failure: str | None, began_s: float, context_length: int | None = None) -> None:
        state = InstanceState.READY if failure is None else InstanceState.FAILED
        now_s = self._clock.wall()
        before = self._info
        if before.state is not state:
            logger.info("%s is %s%s", self.spec.name, state, f": {failure}" if failure else "")
        self._info = replace(
            before,
            state=state,
            reason=failure,
            since_s=before.since_s if before.state is state else now_s,
            checked_at_s=now_s,
            check_s=self._clock.monotonic() - began_s,
            context_length=self.spec.context_length or context_length or before.context_length,
        )

    def _connected(self) -> RemoteServer:
        """Its connections, made with the key when they are first needed.

        Raises:
            RemoteError: the variable that should hold the key is not set.
        """
        with self._lock:
            if self._server is None:
                self._server = RemoteServer(self.spec, self._read_key())
            return self._server

    def _begin(self, answer: RemoteAnswer, server: RemoteServer) -> None:
        if self._is_closed:
            self._finish(answer, answer.end(FinishReason.CANCELLED))
            return
        task = asyncio.ensure_future(answer.run(server, self.spec.model, answer.request.timeout_s or self._timeout_s))
        self._tasks[answer.request.request_id] = task
        task.add_done_callback(lambda ended: self._end(answer, ended))

    def _cancel(self, answer: RemoteAnswer) -> None:
        task = self._tasks.get(answer.request.request_id)
        if task is not None:
            task.cancel()

    def _end(self, answer: RemoteAnswer, task: asyncio.Task[Finished]) -> None:
        """A cancelled task may never have run, so its end is not its own to tell."""
        self._tasks.pop(answer.request.request_id, None)
        cancelled = answer.end(FinishReason.CANCELLED, answer.stream.overrun) if task.cancelled() else None
        self._finish(answer, cancelled or task.result())

    def _finish(self, answer: RemoteAnswer, finished: Finished) -> None:
        """Whatever happened, the request leaves, its stream ends, and it is recorded."""
        with self._lock:
            self._answers.pop(answer.request.request_id, None)
        answer.stream.put(finished)
        self._on_finish(answer.request, finished)
