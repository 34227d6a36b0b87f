"""The in-process engine and what belongs to it. Nothing here knows that Streamlit exists."""

from __future__ import annotations

from engine.config import Settings, load_settings
from engine.console import Console, open_console
from engine.engine import Engine, RequestInfo
from engine.inference.images import ImagePart
from engine.inference.request import Delta, Event, Finished, FinishReason, Message, Request, SamplingParams
from engine.instance import InstanceInfo, InstanceState
from engine.models.spec import ModelSpec

__all__ = [
    "Console",
    "Delta",
    "Engine",
    "Event",
    "FinishReason",
    "Finished",
    "ImagePart",
    "InstanceInfo",
    "InstanceState",
    "Message",
    "ModelSpec",
    "Request",
    "RequestInfo",
    "SamplingParams",
    "Settings",
    "load_settings",
    "open_console",
]
