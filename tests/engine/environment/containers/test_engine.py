from __future__ import annotations

import dataclasses

import pytest

from engine.deploy.docker import DEFAULT_ADDRESS, ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus, Finding, Shared
from engine.environment.containers.engine import (
    in_its_words,
    judge_components,
    judge_engine,
    judge_warnings,
    with_info,
)
from engine.environment.profile import ContainersProfile

ANY, REQUIRED = ContainersProfile(), ContainersProfile(required=True)
DOCKER = ContainerEngine(DEFAULT_ADDRESS, "Docker Engine", "28.5.1", "1.51", info=EngineInfo())
ABSENT = ContainerEngine(DEFAULT_ADDRESS, reason="No container engine runs here.", is_absent=True)
DEAD = ContainerEngine(DEFAULT_ADDRESS, reason="No container engine answers.")
FORBIDDEN = ContainerEngine(DEFAULT_ADDRESS, reason="This user may not open it.", is_forbidden=True)


def with_components(*components: tuple[str, str]) -> ContainerEngine:
    return dataclasses.replace(DOCKER, components=components)


def test_an_engine_that_answers_passes() -> None:
    finding = judge_engine(DOCKER, REQUIRED)
    assert finding.status is CheckStatus.PASS
    assert finding.observed == f"Docker Engine 28.5.1, API 1.51, at {DEFAULT_ADDRESS}"
    assert finding.facts == {"name": "Docker Engine", "version": "28.5.1", "api_version": "1.51"}


@pytest.mark.parametrize("engine", [ABSENT, DEAD])
def test_none_is_a_skip_where_none_is_required(engine: ContainerEngine) -> None:
    finding = judge_engine(engine, ANY)
    assert (finding.status, finding.observed) == (CheckStatus.SKIP, engine.reason)


@pytest.mark.parametrize(
    ("engine", "remedy"),
    [
        (ABSENT, "systemctl enable --now docker"),
        (DEAD, "systemctl restart docker"),
        (dataclasses.replace(DEAD, address="tcp://engine:2375"), "correct DOCKER_HOST"),
    ],
)
def test_none_fails_where_one_is_required(engine: ContainerEngine, remedy: str) -> None:
    finding = judge_engine(engine, REQUIRED)
    assert finding.status is CheckStatus.FAIL
    assert remedy in (finding.remedy or "")


@pytest.mark.parametrize(("profile", "status"), [(ANY, CheckStatus.WARN), (REQUIRED, CheckStatus.FAIL)])
def test_one_that_may_not_be_used_names_the_group(profile: ContainersProfile, status: CheckStatus) -> None:
    finding = judge_engine(FORBIDDEN, profile)
    assert finding.status is status
    assert "usermod -aG docker" in (finding.remedy or "")


def test_a_podman_socket_of_root_has_another_remedy() -> None:
    podman = dataclasses.replace(FORBIDDEN, address="unix:///run/podman/podman.sock")
    assert "systemctl --user enable --now podman.socket" in (judge_engine(podman, ANY).remedy or "")


def test_podman_gets_podmans_commands() -> None:
    podman = ContainerEngine("unix:///run/user/1/podman/podman.sock", "Podman Engine")
    finding = Finding(
        CheckStatus.WARN, "", "Repeat it with `docker run X` and read `journalctl -u docker -u containerd`."
    )
    said = "Repeat it with `podman run X` and read `journalctl -t podman -t conmon`."
    assert in_its_words(podman, finding).remedy == said
    assert in_its_words(dataclasses.replace(podman, address="", name="Docker Engine"), finding) is finding
    assert in_its_words(podman, Finding(CheckStatus.PASS, "")).remedy is None


def test_components_pass_and_are_told() -> None:
    finding = judge_components(with_components(("containerd", "1.7.28"), ("runc", "1.3.3"), ("docker-init", "0.19.0")))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == "containerd 1.7.28, runc 1.3.3, docker-init 0.19.0"
    assert finding.facts["docker_init_version"] == "0.19.0"


def test_a_component_that_is_not_found_warns() -> None:
    finding = judge_components(with_components(("containerd", "1.7.28"), ("runc", "")))
    assert finding.status is CheckStatus.WARN
    assert finding.observed == "containerd 1.7.28, runc of unknown version"
    assert "Install runc again" in (finding.remedy or "")


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ("1.1.11", "1.2.8"),
        ("1.1.12", "1.2.8"),
        ("1.0.0-rc93", "1.2.8"),
        ("1.2.7", "1.2.8"),
        ("v1.3.2", "1.3.3"),
        ("1.3.0-rc.1", "1.3.3"),
        ("1.4.0-rc.2", "1.4.0"),
        ("1.2.8", None),
        ("1.3.3", None),
        ("1.4.0-rc.3", None),
        ("1.4.0", None),
        ("1.5.1", None),
        ("1.1.5+ds1", None),
        ("1.1.12-0ubuntu3.1", None),
    ],
)
def test_an_upstream_runc_with_an_escape_known_here_warns(version: str, mended: str | None) -> None:
    finding = judge_components(with_components(("runc", version)))
    assert finding.status is (CheckStatus.PASS if mended is None else CheckStatus.WARN)
    assert (finding.remedy is None) or f"runc to {mended} or later" in finding.remedy
    assert (finding.remedy is None) or "CVE-2025-31133" in finding.remedy


def test_an_engine_without_components_is_a_skip() -> None:
    assert judge_components(DOCKER).status is CheckStatus.SKIP


def test_no_warnings_pass_and_live_restore_is_told() -> None:
    finding = judge_warnings(EngineInfo(is_live_restored=True))
    assert finding.status is CheckStatus.PASS
    assert finding.observed == ("no warnings; containers outlive a restart of the engine (live-restore is on)")


def test_warnings_about_limits_not_used_here_pass() -> None:
    info = EngineInfo(warnings=("WARNING: No blkio throttle.read_bps_device support", "WARNING: No io.weight support"))
    finding = judge_warnings(info)
    assert (finding.status, finding.observed) == (CheckStatus.PASS, "no warnings but 2 about limits not used here")


@pytest.mark.parametrize(
    ("warning", "remedy"),
    [
        ("WARNING: No swap limit support", "swapaccount=1"),
        ("WARNING: bridge-nf-call-iptables is disabled", "modprobe br_netfilter"),
        ("WARNING: IPv4 forwarding is disabled", "net.ipv4.ip_forward=1"),
        ("WARNING: API is accessible on http://0.0.0.0:2375 without encryption.", "daemon.json"),
        ("WARNING: something new", "`docker info`"),
    ],
)
def test_other_warnings_warn_with_a_remedy_each(warning: str, remedy: str) -> None:
    finding = judge_warnings(EngineInfo(warnings=(warning,)))
    assert finding.status is CheckStatus.WARN
    assert finding.observed == warning.removeprefix("WARNING: ")
    assert remedy in (finding.remedy or "")


def test_one_remedy_for_two_warnings_is_said_once() -> None:
    info = EngineInfo(warnings=("bridge-nf-call-iptables is disabled", "bridge-nf-call-ip6tables is disabled"))
    assert (judge_warnings(info).remedy or "").count("modprobe") == 1


def test_checks_skip_where_there_is_nothing_to_ask() -> None:
    def judge(engine: ContainerEngine, info: EngineInfo) -> Finding:
        return Finding(CheckStatus.PASS, f"{engine.name} asked")

    absent = with_info(Shared(lambda: ABSENT), judge)()
    assert (absent.status, absent.observed) == (CheckStatus.SKIP, "no container engine answers")
    silent = with_info(Shared(lambda: dataclasses.replace(DOCKER, info=None)), judge)()
    assert (silent.status, "keeps its info back" in silent.observed) == (CheckStatus.SKIP, True)
    assert with_info(Shared(lambda: DOCKER), judge)().observed == "Docker Engine asked"
