"""Checks of the network; offline is a mode of it, and fails only what a profile requires."""

from __future__ import annotations

import os

from engine.environment.check import Check, Finding
from engine.environment.context import CheckContext
from engine.environment.network.hub import judge_hub, read_hub
from engine.environment.network.proxy import judge_proxy, read_proxies
from engine.environment.network.registry import judge_registry, read_registry

__all__ = ["network_checks"]


def network_checks(context: CheckContext) -> tuple[Check, ...]:
    """The checks of proxy, hub and registry; each takes 2 s at most."""
    wanted = context.profile.network

    def check_registry() -> Finding:
        reading = None if wanted.registry is None else read_registry(wanted.registry, os.environ)
        return judge_registry(reading, wanted)

    return (
        Check(
            "network.proxy",
            "Proxy",
            "none, or well-formed and not asked for this machine itself",
            lambda: judge_proxy(read_proxies(os.environ)),
        ),
        Check(
            "network.hub",
            "Model hub",
            "reachable" if wanted.hub_required else "reachable, or offline on purpose",
            lambda: judge_hub(read_hub(os.environ), wanted),
        ),
        Check(
            "network.registry",
            "Image registry",
            "reachable" if wanted.registry_required else "reachable, where the profile names one",
            check_registry,
        ),
    )
