"""Tool calls in a model's text: how each family of models writes them, read from its answer and forced on it."""

from engine.inference.calls.formats import CallFormat, choose_format
from engine.inference.calls.plan import CallPlan, plan_calls
from engine.inference.calls.reader import CallReader

__all__ = ["CallFormat", "CallPlan", "CallReader", "choose_format", "plan_calls"]
