"""A model being served: its states, its threads, and the versions of it behind one name."""

from __future__ import annotations

from engine.instance.instance import Instance
from engine.instance.reading import Backend, InstanceInfo, InstanceState, Role
from engine.instance.versions import Versions

__all__ = ["Backend", "Instance", "InstanceInfo", "InstanceState", "Role", "Versions"]
