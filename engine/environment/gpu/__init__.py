"""Checks of GPUs: the driver, each card and its health, the installed torch on it, and real kernels."""

from __future__ import annotations

from engine.environment.gpu.family import gpu_checks

__all__ = ["gpu_checks"]
