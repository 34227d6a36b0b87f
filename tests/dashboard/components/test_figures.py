from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_RACE = """
import sys, threading, time
importing = threading.Thread(target=__import__, args=("pandas",))
importing.start()
while "pandas" not in sys.modules:
    time.sleep(0)
from dashboard.components.figures import graph_objects
go = graph_objects()
go.Figure(go.Scatter(x=[1, 2], y=[3, 4])).to_dict()
importing.join()
"""


def test_a_chart_while_another_session_imports_pandas() -> None:
    """Each in a process of its own, where nothing is imported yet."""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", _RACE], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
