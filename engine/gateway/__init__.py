"""The way in for requests: a name becomes an instance, local or remote, and the request goes on to the next one as long
as nothing of the answer was read."""

from __future__ import annotations

from engine.gateway.cache import CACHED, CacheFigures, CacheRules, ResponseCache
from engine.gateway.flight import SharedStream
from engine.gateway.gateway import Gateway
from engine.gateway.kept import EncodedAnswer, Written
from engine.gateway.memory import Decided
from engine.gateway.routes import Routes
from engine.gateway.standings import Recent
from engine.gateway.stream import RoutedStream

__all__ = [
    "CACHED",
    "CacheFigures",
    "CacheRules",
    "Decided",
    "EncodedAnswer",
    "Gateway",
    "Recent",
    "ResponseCache",
    "RoutedStream",
    "Routes",
    "SharedStream",
    "Written",
]
