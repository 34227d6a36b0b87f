"""Is there a container engine, which, and what does it say of itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from packaging.version import Version

from engine.deploy.docker import DEFAULT_ADDRESS, ContainerEngine, EngineInfo
from engine.environment.check import CheckStatus, Finding, Shared, severity
from engine.environment.profile import ContainersProfile

# Ways out of the container that are known here, and the release that ends them all in each branch of runc: advisories
# GHSA-9493-h29p-rfm2, GHSA-qw9x-cqr3-wc7r and GHSA-cgrx-mc8f-2prm of November 2025. What came later is not known here.
RUNC_ESCAPES = "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881"
RUNC_MENDED = {(1, 2): Version("1.2.8"), (1, 3): Version("1.3.3"), (1, 4): Version("1.4.0rc3")}
# Numbers of upstream's own: distributions mend an old version and add a suffix to it.
_UPSTREAM = re.compile(r"v?(\d+\.\d+\.\d+(?:-rc\.?\d+)?)")

_BOOT = "Boot with `cgroup_enable=memory swapaccount=1` on the kernel's command line."
_BRIDGE = (
    "`sudo modprobe br_netfilter && "
    "sudo sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1`."
)
_EXPOSED = 'Take the tcp:// address out of "hosts" in /etc/docker/daemon.json, or give it TLS: it is root access.'
_REMEDIES = {
    "encryption": _EXPOSED,
    "insecure": _EXPOSED,
    "swap limit": _BOOT,
    "memory limit": _BOOT,
    "bridge-nf-call": _BRIDGE,
    "ipv4 forwarding": "`sudo sysctl -w net.ipv4.ip_forward=1`: without it containers reach no network.",
    "cfs": "Use a kernel with CONFIG_CFS_BANDWIDTH: without it `--cpus` limits nothing.",
}
# Disk throttling and memory of the kernel itself: nothing here sets those limits.
_HARMLESS = re.compile(r"blkio|kernel memory|oom kill disable|io\.(weight|max)", re.IGNORECASE)


def with_info(
    engine: Shared[ContainerEngine], judge: Callable[[ContainerEngine, EngineInfo], Finding]
) -> Callable[[], Finding]:
    """Run `judge` where an engine answers and tells about itself; else skip with the reason."""

    def run() -> Finding:
        found = engine()
        if found.reason is not None:
            return Finding(CheckStatus.SKIP, "no container engine answers")
        if found.info is None:
            return Finding(CheckStatus.SKIP, f"{found.name} at {found.address} keeps its info back")
        return in_its_words(found, judge(found, found.info))

    return run


def in_its_words(engine: ContainerEngine, finding: Finding) -> Finding:
    """The finding with Podman's commands where the engine is Podman: they are Docker's, but for where logs are."""
    if not engine.is_podman or finding.remedy is None:
        return finding
    remedy = finding.remedy.replace("`journalctl -u docker -u containerd", "`journalctl -t podman -t conmon")
    return replace(finding, remedy=re.sub(r"`(sudo )?docker ", r"`\1podman ", remedy))


def judge_engine(engine: ContainerEngine, profile: ContainersProfile) -> Finding:
    """Skip where there is no engine and none is required; warn where there is one that this user may not use, or where
    DOCKER_HOST names one that does not answer."""
    if engine.reason is None:
        observed = f"{engine.name} {engine.version}, API {engine.api_version}, at {engine.address}"
        facts = {"name": engine.name, "version": engine.version, "api_version": engine.api_version}
        return Finding(CheckStatus.PASS, observed, facts=facts)
    if engine.is_forbidden:
        return Finding(severity(profile.required), engine.reason, _access_remedy(engine))
    if profile.required or engine.is_named:
        return Finding(severity(profile.required), engine.reason, _start_remedy(engine))
    return Finding(CheckStatus.SKIP, engine.reason)


def judge_components(engine: ContainerEngine) -> Finding:
    """Warn where a program that starts containers is not found, or is a runc that is known here to let out of the
    container."""
    if not engine.components:
        return Finding(CheckStatus.SKIP, f"{engine.name} names no components")
    observed = ", ".join(f"{name} {version or 'of unknown version'}" for name, version in engine.components)
    facts = {name.replace("-", "_") + "_version": version or None for name, version in engine.components}
    missing = [name for name, version in engine.components if not version or version == "N/A"]
    if missing:
        remedy = (
            f"Install {' and '.join(missing)} again, then `sudo systemctl restart docker`; see `journalctl -u docker`."
        )
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    if mended := find_mended_runc(dict(engine.components).get("runc")):
        remedy = (
            f"Update runc to {mended.base_version} or later (`sudo apt-get install --only-upgrade containerd.io`, or "
            f"the distribution's runc): {RUNC_ESCAPES} let an image out of its container."
        )
        return Finding(CheckStatus.WARN, observed, remedy, facts)
    return Finding(CheckStatus.PASS, observed, facts=facts)


def judge_warnings(info: EngineInfo) -> Finding:
    """Warn about what the engine itself warns of, but for limits that nothing here sets."""
    warnings = [re.sub(r"^WARNING:\s*", "", text.strip()) for text in info.warnings]
    serious = [text for text in warnings if not _HARMLESS.search(text)]
    if serious:
        remedies = dict.fromkeys(map(_warning_remedy, serious))
        return Finding(CheckStatus.WARN, "; ".join(serious), " ".join(remedies), {"num_warnings": len(serious)})
    told = f"no warnings but {len(warnings)} about limits not used here" if warnings else "no warnings"
    if info.is_live_restored is not None:
        told += "; containers outlive" if info.is_live_restored else "; containers stop with"
        told += f" a restart of the engine (live-restore is {'on' if info.is_live_restored else 'off'})"
    return Finding(CheckStatus.PASS, told, facts={"num_warnings": 0, "is_live_restored": info.is_live_restored})


def _warning_remedy(warning: str) -> str:
    text = warning.lower()
    return next((remedy for word, remedy in _REMEDIES.items() if word in text), f"See `docker info` on {warning!r}.")


def find_mended_runc(version: str | None) -> Version | None:
    """The release to go to from one of upstream's own that is older; None where there is nothing to mend, or where the
    distribution may have done it."""
    match = _UPSTREAM.fullmatch(version or "")
    if match is None:
        return None
    here = Version(match[1])
    mended = RUNC_MENDED.get((here.major, here.minor), min(RUNC_MENDED.values()))
    return mended if here < mended else None


def _access_remedy(engine: ContainerEngine) -> str:
    if engine.is_podman:
        return f"Use a socket of this user's own: {_PODMAN}."
    return "Add this user to the engine's group (`sudo usermod -aG docker $USER`) and sign in again."


def _start_remedy(engine: ContainerEngine) -> str:
    if engine.address != DEFAULT_ADDRESS:
        return f"Start the engine that belongs at {engine.address}, or correct DOCKER_HOST (or unset it)."
    if engine.is_absent:
        return (
            "Install Docker (`sudo apt-get install docker.io`) or start it (`sudo systemctl enable --now docker`); "
            f"for Podman: {_PODMAN}."
        )
    return "Restart it (`sudo systemctl restart docker`); `journalctl -u docker -n 50` says why it ended."


_PODMAN = (
    "`systemctl --user enable --now podman.socket` and `export DOCKER_HOST=unix://$XDG_RUNTIME_DIR/podman/podman.sock`"
)
