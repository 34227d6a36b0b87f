from __future__ import annotations

from pathlib import Path

from dashboard.components.pull_form import bar, pulled_text
from engine.staged_job import StageProgress
from engine.weights.files import FileEntry
from engine.weights.pull import Pulled


def test_progress_is_told_in_bytes_and_in_percent_where_there_are_none() -> None:
    downloading = StageProgress("acme/m", "downloading 1.2 of 3.4 GB, 120 MB/s, 18 s left", 0.35, 0.0)
    assert bar(downloading) == (0.35, r"acme/m\: downloading 1.2 of 3.4 GB, 120 MB/s, 18 s left")
    assert bar(StageProgress("sample", "unpacking GGUF, once", 0.5, 0.0)) == (
        0.5,
        r"sample\: unpacking GGUF, once, 50%",
    )
    assert bar(StageProgress("acme/m", "beginning", None, 0.0)) == (0.0, r"acme/m\: beginning")


def test_what_is_here() -> None:
    files = (FileEntry("config.json", 10, None), FileEntry("model.safetensors", 990, "0" * 64))
    pulled = Pulled("acme/my_m@main", "my_m", "0123456789ab", Path("/w"), 1_000, files)
    assert pulled_text(pulled) == r"**acme/my\_m@main** is here: 1.0 kB in 2 files, revision 0123456789ab."
