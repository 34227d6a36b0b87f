"""The admin API: what the operator's pages do, for programs. A key with the scope `admin` opens it."""

from __future__ import annotations

from engine.api.admin.app import build_admin

__all__ = ["build_admin"]
