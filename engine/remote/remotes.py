"""The table of remote instances: kept in the state database, opened with the console, added, changed and removed."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from engine.clock import Clock
from engine.engine import RequestInfo
from engine.errors import ConsoleError, InstanceExistsError, InstanceNotFoundError
from engine.inference.request import Finished, Request
from engine.loop_thread import LoopThread
from engine.remote.instance import RemoteInfo, RemoteInstance
from engine.remote.server import ListedModel, RemoteServer
from engine.remote.spec import RemoteSpec
from engine.remote.trouble import RemoteError

_CLOSE_TIMEOUT_S = 10.0


class RemoteStore(Protocol):
    """Where the table is kept; `key` reads the stored key of one instance."""

    def remotes(self) -> tuple[RemoteSpec, ...]: ...

    def keep_remote(self, spec: RemoteSpec, key: str | None) -> None: ...

    def forget_remote(self, name: str) -> None: ...

    def key(self, name: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of asking a server for its models; `error` is None when it answered."""

    models: tuple[ListedModel, ...]
    took_s: float
    error: str | None = None


class Remotes:
    """Any thread may call. `on_end` is told of each ended request, on the loop's thread."""

    def __init__(
        self,
        store: RemoteStore,
        timeout_s: float,
        on_end: Callable[[Request, Finished], None],
        clock: Clock,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._on_end = on_end
        self._clock = clock
        self._environ = environ
        self._loop = LoopThread("remote-instances")
        self._lock = threading.Lock()
        self._instances = {spec.name: self._open(spec) for spec in store.remotes()}

    def add(self, spec: RemoteSpec, key: str | None = None) -> RemoteSpec:
        """Keep a new remote instance and begin to check it. `key` is stored, never to be read by anybody again; give
        a variable's name in the spec instead to have it stored nowhere.

        Raises:
            InvalidRequestError: a value makes no sense.
            InstanceExistsError: the name is taken.
            StoreError: it cannot be kept.
        """
        spec = spec.checked()
        with self._lock:
            if spec.name in self._instances:
                raise InstanceExistsError(f"a remote instance named {spec.name!r} is here already: give another name")
            self._store.keep_remote(spec, None if spec.key_variable else key or None)
            self._instances[spec.name] = self._open(spec)
        return spec

    def remove(self, name: str) -> None:
        """Cancel its requests and forget it, with its key.

        Raises:
            InstanceNotFoundError: there is none of that name.
            StoreError: it cannot be forgotten.
        """
        instance = self.find(name)
        self._store.forget_remote(name)
        with self._lock:
            self._instances.pop(name, None)
        self._loop.run(instance.close()).result(_CLOSE_TIMEOUT_S)

    def find(self, name: str) -> RemoteInstance:
        """The instance of that name.

        Raises:
            InstanceNotFoundError: there is none.
        """
        with self._lock:
            found = self._instances.get(name)
        if found is None:
            raise InstanceNotFoundError(f"there is no remote instance named {name!r}")
        return found

    def infos(self) -> tuple[RemoteInfo, ...]:
        """A reading of each, in the order they were added."""
        return tuple(instance.info() for instance in self._all())

    def requests(self) -> tuple[RequestInfo, ...]:
        """The requests under way at all of them."""
        return tuple(request for instance in self._all() for request in instance.requests())

    def cancel(self, request_id: str) -> bool:
        """Cancel a request; False when it is not here."""
        return any(instance.cancel(request_id) for instance in self._all())

    def check(self, name: str) -> RemoteInfo:
        """Check an instance now, and wait for what comes of it.

        Raises:
            InstanceNotFoundError: there is none of that name.
        """
        instance = self.find(name)
        self._loop.run(instance.check()).result(instance.spec.check_timeout_s + _CLOSE_TIMEOUT_S)
        return instance.info()

    def test(self, spec: RemoteSpec, key: str | None = None) -> Trial:
        """Ask a server for its models without keeping anything of it.

        Raises:
            InvalidRequestError: a value makes no sense.
        """
        spec = spec.checked()
        began_s = self._clock.monotonic()
        try:
            models = self._loop.run(_list_models(spec, self._read_variable(spec) or key)).result()
        except ConsoleError as error:
            return Trial((), self._clock.monotonic() - began_s, str(error))
        return Trial(models, self._clock.monotonic() - began_s)

    def close(self) -> None:
        """Cancel every request and end the thread. Safe to call twice."""
        with self._lock:
            instances, self._instances = list(self._instances.values()), {}
        for instance in instances:
            self._loop.run(instance.close()).result(_CLOSE_TIMEOUT_S)
        self._loop.close()

    def _all(self) -> list[RemoteInstance]:
        with self._lock:
            return list(self._instances.values())

    def _open(self, spec: RemoteSpec) -> RemoteInstance:
        stored = None if spec.key_variable else self._store.key(spec.name)
        return RemoteInstance(
            spec,
            lambda: self._read_variable(spec) or stored,
            self._loop,
            self._clock,
            self._timeout_s,
            self._on_end,
        )

    def _read_variable(self, spec: RemoteSpec) -> str | None:
        if spec.key_variable is None:
            return None
        key = self._environ.get(spec.key_variable, "").strip()
        if not key:
            raise RemoteError(
                f"{spec.key_variable}, which should hold the key of {spec.name}, is not set in the console's "
                "environment: set it and start the console again"
            )
        return key


async def _list_models(spec: RemoteSpec, key: str | None) -> tuple[ListedModel, ...]:
    server = RemoteServer(spec, key)
    try:
        async with asyncio.timeout(spec.check_timeout_s):
            return await server.list_models()
    except TimeoutError:
        raise RemoteError(
            f"{spec.name} gave no answer within {spec.check_timeout_s:g} s: check that it is up, and its base URL"
        ) from None
    finally:
        await server.close()
