from __future__ import annotations

import time
from pathlib import Path

import pytest

from engine.environment.check import CheckStatus, run_checks
from engine.environment.context import CheckContext
from engine.environment.network import network_checks
from engine.environment.profile import NetworkProfile, Profile
from engine.telemetry.nvml import Nvml
from tests.engine.environment.network.servers import free_port, serve


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch


def context(home: Path, network: NetworkProfile) -> CheckContext:
    return CheckContext(Profile(title="test", network=network), home, Nvml())


def test_all_pass_where_all_is_there(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    with serve() as server:
        clean.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.port}")
        profile = NetworkProfile(hub_required=True, registry=f"127.0.0.1:{server.port}", registry_required=True)
        results = run_checks(network_checks(context(tmp_path, profile)))
    assert [result.id for result in results] == ["network.proxy", "network.hub", "network.registry"]
    assert {result.status for result in results} == {CheckStatus.PASS}


def test_offline_neither_fails_nor_takes_long(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    clean.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    started_s = time.monotonic()
    results = run_checks(network_checks(context(tmp_path, NetworkProfile(registry=f"127.0.0.1:{free_port()}"))))
    assert time.monotonic() - started_s < 10
    assert [result.status for result in results] == [CheckStatus.PASS, CheckStatus.WARN, CheckStatus.WARN]


def test_a_changed_environment_is_read_at_the_run(tmp_path: Path, clean: pytest.MonkeyPatch) -> None:
    checks = network_checks(context(tmp_path, NetworkProfile()))
    clean.setenv("HF_HUB_OFFLINE", "1")
    clean.setenv("HTTP_PROXY", "http://proxy:3128")
    proxy, hub, registry = run_checks(checks)
    assert (proxy.status, hub.status, registry.status) == (CheckStatus.WARN, CheckStatus.SKIP, CheckStatus.SKIP)
