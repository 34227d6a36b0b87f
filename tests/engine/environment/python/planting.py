"""Tiny distributions made by hand: planted into a site-packages folder, or packed as wheels for a local index."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path


def metadata_text(name: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    return "\n".join(lines) + "\n\nRequires-Dist: words in the description ask for nothing\n"


def plant(site: Path, name: str, version: str, requires: Sequence[str] = (), extras: Sequence[str] = ()) -> Path:
    """Make `name` look installed in `site`; gives the metadata's folder."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(metadata_text(name, version, requires, extras), encoding="utf-8")
    (folder / "INSTALLER").write_text("hand\n", encoding="utf-8")
    return folder


def build_wheel(folder: Path, name: str, version: str, requires: Sequence[str] = ()) -> Path:
    """A pure wheel of one empty module."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    contents = {
        f"{stem}.py": "",
        f"{info}/METADATA": metadata_text(name, version, requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{path},sha256={_digest(text)},{len(text)}" for path, text in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    file = folder / f"{stem}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
    return file


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
