from __future__ import annotations

from dataclasses import replace

import pytest

from engine.environment.check import CheckStatus
from engine.environment.host.system import System, judge_system, read_system

BOOKWORM = System("Debian GNU/Linux 12 (bookworm)", "Linux", "6.1.0-test", "glibc", "2.36", "x86_64")


def test_linux_with_a_current_libc_passes_and_is_named() -> None:
    finding = judge_system(BOOKWORM)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "Debian GNU/Linux 12 (bookworm), Linux 6.1.0-test, glibc 2.36, x86_64"
    assert finding.facts["kernel"] == "6.1.0-test"


@pytest.mark.parametrize(
    ("system", "remedy"),
    [
        (replace(BOOKWORM, name="Darwin", libc="", libc_version=""), "Run the console on Linux"),
        (replace(BOOKWORM, libc_version="2.27"), "glibc 2.28 or newer"),
        (replace(BOOKWORM, libc="", libc_version=""), "python:3.11-slim"),
    ],
    ids=["another system", "an old libc", "musl"],
)
def test_what_torch_does_not_run_on_warns(system: System, remedy: str) -> None:
    finding = judge_system(system)
    assert finding.status is CheckStatus.WARN
    assert remedy in (finding.remedy or "")


def test_a_system_without_a_release_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_release() -> None:
        raise OSError("no os-release")

    monkeypatch.setattr("platform.freedesktop_os_release", no_release)
    monkeypatch.setattr("platform.release", lambda: "6.1.0-test")
    system = read_system()
    assert (system.distribution, system.kernel) == ("", "6.1.0-test")
