"""What docs/ says about profiles is what the profiles accept."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from engine.environment.profile import Bound, Profile

ENVIRONMENT = Path(__file__).parents[1] / "docs/environment.md"


def keys(model: type[BaseModel], prefix: str = "") -> set[str]:
    """Every key of a profile, dotted."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        part = field.annotation
        is_table = isinstance(part, type) and issubclass(part, BaseModel) and part is not Bound
        found |= keys(part, f"{prefix}{name}.") if is_table else {prefix + name}  # type: ignore[arg-type]
    return found


def test_every_profile_key_is_documented_and_no_other() -> None:
    documented: set[str] = set()
    for row in re.findall(r"^\| (`[^|]*`) \|", ENVIRONMENT.read_text(encoding="utf-8"), re.MULTILINE):
        first, *more = re.findall(r"`([^`]+)`", row)
        table = first.split(".")[0]
        documented |= {first, *(table + name if name.startswith(".") else name for name in more)}
    assert documented == keys(Profile)
