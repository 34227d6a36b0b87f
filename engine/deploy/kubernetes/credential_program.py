"""A kubeconfig's credential program, ended at a limit with all that it started.

The client library waits for the program without a limit. So it is given this module to run in the program's place,
which also bounds later renewals of the credentials.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

_TIMED_OUT_STATUS = 124  # as of timeout(1)


def limit_program(plugin: dict[str, Any], limit_s: float) -> None:
    """Change a kubeconfig's `exec` so that its command is ended after `limit_s`."""
    command = [str(limit_s), str(plugin["command"]), *(plugin.get("args") or [])]
    plugin |= {"command": sys.executable, "args": ["-I", "-S", __file__, *command]}


def run_limited(command: Sequence[str], limit_s: float) -> int:
    """The program's exit status; at the limit it is killed, together with its children."""
    # A session of its own is a group of its own to kill; a prompt on the terminal fails in it instead of waiting.
    process = subprocess.Popen(command, start_new_session=True)
    try:
        status = process.wait(limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        print(f"no answer within {limit_s:g} s", file=sys.stderr)
        return _TIMED_OUT_STATUS
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(run_limited(sys.argv[2:], float(sys.argv[1])))
