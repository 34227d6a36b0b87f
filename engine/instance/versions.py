"""The versions of a model behind one public name, and the swap from one to the next.

A swap loads the next version beside the one that serves. Whoever asks first after it has become ready finds it
serving, and the old one retired: the two happen under one lock, so each request is taken by exactly one version and
none falls between them. A thread of the swap then drains the old one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from engine.errors import InstanceExistsError, InstanceNotReadyError
from engine.inference.embedding import EmbeddingJob, EmbeddingRequest
from engine.inference.request import Request, Timing
from engine.inference.tokens import TokenizeRequest, Tokens
from engine.instance.instance import Instance
from engine.instance.reading import InstanceInfo, InstanceState, Role

if TYPE_CHECKING:
    from engine.inference.sequence import Sequence

_T = TypeVar("_T")


class Versions:
    """Owns which version serves, which is coming and which are leaving. Any thread may call."""

    def __init__(self, first: Instance, *, is_pinned: bool = False) -> None:
        self.name = first.name
        self.is_pinned = is_pinned
        self._lock = threading.Lock()
        self._serving = first
        self._next: Instance | None = None
        self._leaving: list[Instance] = []
        self._failed: InstanceInfo | None = None
        self._last_version = first.version
        self._swapping: threading.Thread | None = None
        self._is_closing = False

    def start(self) -> None:
        """Begin to load the first version."""
        self._serving.start()

    @property
    def is_over(self) -> bool:
        """Whether nothing is served here any more, nor will be by itself."""
        with self._lock:
            info = self._serving.info()
            is_dead = info.state is InstanceState.FAILED and info.retry_at_s is None
            return (is_dead or info.state is InstanceState.STOPPED) and self._next is None

    @property
    def generation(self) -> int | None:
        """The number that only the version which serves has, of all ever loaded; None where it is not ready."""
        instance = self._current()
        return instance.generation if instance.is_ready else None

    def submit(self, request: Request, timing: Timing) -> Sequence:
        """Queue a request at the version that serves; one that has just stopped to is no error.

        Raises:
            InstanceNotReadyError, InvalidRequestError, QueueFullError: see `Instance.submit`.
        """
        return self._ask(lambda instance: instance.submit(request, timing))

    def embed(self, request: EmbeddingRequest, timing: Timing) -> EmbeddingJob:
        """Queue texts to be embedded; raises as `submit` does."""
        return self._ask(lambda instance: instance.embed(request, timing))

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """See `Instance.tokenize`."""
        return self._ask(lambda instance: instance.tokenize(request))

    def detokenize(self, token_ids: tuple[int, ...]) -> str:
        """See `Instance.detokenize`."""
        return self._ask(lambda instance: instance.detokenize(token_ids))

    def _ask(self, ask: Callable[[Instance], _T]) -> _T:
        while True:
            instance = self._current()
            try:
                return ask(instance)
            except InstanceNotReadyError:
                if self._current() is instance:
                    raise

    def instances(self) -> list[Instance]:
        """All versions that are here: serving, next, leaving."""
        with self._lock:
            coming = [] if self._next is None else [self._next]
            return [self._serving, *coming, *self._leaving]

    def infos(self) -> list[InstanceInfo]:
        """A reading of each version, in the order of `instances`; at most one of them is ready. After a swap that
        failed the last one is that of the version that did not come to serve."""
        with self._lock:
            next_info = self._settle()
            coming = [] if next_info is None else [(next_info, Role.NEXT)]
            leaving = [(instance.info(), Role.LEAVING) for instance in self._leaving]
            failed = [] if self._failed is None else [(self._failed, Role.NEXT)]
            readings = [(self._serving.info(), Role.SERVING), *coming, *leaving, *failed]
            return [replace(info, role=role, is_pinned=self.is_pinned) for info, role in readings]

    def swap(self, open_instance: Callable[[int], Instance], drain_s: float) -> None:
        """Begin to load the version that `open_instance` makes for its number, and return.

        Raises:
            InstanceExistsError: a swap is under way.
            InstanceNotReadyError: the name is being unloaded.
        """
        with self._lock:
            self._check_free()
            self._failed = None
            self._last_version += 1
            coming = self._next = open_instance(self._last_version)
            self._swapping = threading.Thread(
                target=self._carry_out, args=(coming, drain_s), name=f"swap:{self.name}", daemon=True
            )
            coming.start()
            self._swapping.start()

    def cancel_swap(self) -> bool:
        """Give up a swap whose version is not serving yet, or forget one that failed; False when there is neither.
        Returns at once: the loading ends at its next report of progress."""
        with self._lock:
            self._settle()
            was_failed, self._failed = self._failed is not None, None
            if self._next is None:
                return was_failed
            self._next.abandon()
            self._leaving.append(self._next)
            self._next = None
            return True

    def retire_if_idle(self) -> bool:
        """Take no more requests, if none is here and no swap is under way; False, and nothing changes, otherwise."""
        with self._lock:
            if self._next is not None or self._leaving or self._is_closing:
                return False
            self._is_closing = self._serving.retire_if_idle()
            return self._is_closing

    def stop(self, drain_s: float = 0.0) -> None:
        """Stop all versions. Returns when their threads have ended."""
        with self._lock:
            self._is_closing = True
        self.cancel_swap()
        for instance in self.instances():
            instance.retire()
        for instance in self.instances():
            instance.stop(drain_s)
        if self._swapping is not None:
            self._swapping.join()

    def _current(self) -> Instance:
        with self._lock:
            self._settle()
            return self._serving

    def _settle(self) -> InstanceInfo | None:
        """Have the next version serve once it is ready, and forget it, but for its reading, once it has failed and
        its memory is back; the reading of one that is still coming. Called under the lock, before anybody looks."""
        if self._next is None:
            return None
        info = self._next.info()
        if info.state is InstanceState.READY:
            self._serving.retire()
            self._leaving.append(self._serving)
            self._serving, self._next = self._next, None
        elif info.state is InstanceState.FAILED and info.retry_at_s is None:
            self._failed, self._next = _without_model(info), None
        else:
            return info
        return None

    def _check_free(self) -> None:
        if self._is_closing:
            raise InstanceNotReadyError(f"{self.name} is being unloaded: load it again when it is gone")
        self._settle()
        if self._next is not None:
            raise InstanceExistsError(
                f"version {self._next.version} of {self.name!r} is loading already: wait for it, or cancel its swap"
            )
        if self._leaving:
            raise InstanceExistsError(
                f"version {self._leaving[0].version} of {self.name!r} is still leaving: wait until it is gone"
            )

    def _carry_out(self, coming: Instance, drain_s: float) -> None:
        """The swap's thread: wait for the outcome, then stop whoever has to go."""
        coming.wait_settled()
        with self._lock:
            self._settle()
            if self._next is coming:
                self._failed = _without_model(coming.info())
                self._leaving.append(coming)
                self._next = None
            going = list(self._leaving) if coming is self._serving else [coming]
        for instance in going:
            instance.stop(drain_s)
            with self._lock:
                if instance in self._leaving:
                    self._leaving.remove(instance)


def _without_model(info: InstanceInfo) -> InstanceInfo:
    """The reading of a version that failed, once nothing of it is here any more."""
    return replace(info, retry_at_s=None, model=None, stats=None)
