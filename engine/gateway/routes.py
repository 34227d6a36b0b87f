"""The routes in force, read from the store once and kept in memory, since every request looks."""

from __future__ import annotations

import threading
from typing import Protocol

from engine.errors import InstanceNotFoundError
from engine.scheduling.router import Route


class RouteStore(Protocol):
    """Where routes are kept."""

    def routes(self) -> tuple[Route, ...]: ...

    def keep_route(self, route: Route) -> None: ...

    def forget_route(self, name: str) -> None: ...


class Routes:
    """Any thread may call."""

    def __init__(self, store: RouteStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._routes = {route.name: route for route in store.routes()}

    def all(self) -> tuple[Route, ...]:
        """The routes, in the order they were made."""
        with self._lock:
            return tuple(self._routes.values())

    def find(self, name: str) -> Route | None:
        """The route of that name; None when there is none."""
        return self._routes.get(name)

    def save(self, route: Route) -> None:
        """Put it in force, in place of the one of its name.

        Raises:
            InvalidRequestError: a value makes no sense.
            StoreError: it cannot be kept; the one before stays in force.
        """
        route.check()
        with self._lock:
            self._store.keep_route(route)
            self._routes[route.name] = route

    def delete(self, name: str) -> None:
        """Take it out of force.

        Raises:
            InstanceNotFoundError: there is none of that name.
            StoreError: it cannot be deleted; it stays in force.
        """
        with self._lock:
            if name not in self._routes:
                raise InstanceNotFoundError(f"there is no route named {name!r}")
            self._store.forget_route(name)
            del self._routes[name]
