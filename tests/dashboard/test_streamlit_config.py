"""What .streamlit/config.toml says, as the servers start: in the project's folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_no_run_of_a_page_collects_all_garbage() -> None:
    """It would hold the interpreter for half a second with torch in memory, at each refresh of each session."""
    code = "from streamlit import config; print(config.get_option('runner.postScriptGC'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "False"
