"""Instances elsewhere: any server that speaks OpenAI's API, asked over HTTP and treated like a local instance.

The one door to them is `server.py`. All requests and checks of all of them run on one thread with an event loop.
"""

from __future__ import annotations

from engine.remote.instance import RemoteInfo
from engine.remote.remotes import Remotes, Trial
from engine.remote.spec import RemoteSpec

__all__ = ["RemoteInfo", "RemoteSpec", "Remotes", "Trial"]
