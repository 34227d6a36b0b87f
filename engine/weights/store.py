"""The weights of one console: what a source names, fetched, and looked at before anything of it is loaded."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.clock import Clock
from engine.config import Settings
from engine.weights.acquire import Acquired, ConvertGguf, acquire
from engine.weights.cache import WeightsCache
from engine.weights.download import Progress
from engine.weights.hub import Hub
from engine.weights.manifest_store import ManifestStore
from engine.weights.remote_code import check_remote_code
from engine.weights.sources import SAMPLE, Source, find_source
from engine.weights.trust import SignatureMode, SourceKind, TrustPolicy, TrustResult, check_trust, policy_for

GIB = 1 << 30
MANIFESTS = "manifests"


@dataclass(frozen=True)
class Fetched:
    """A model's files on this machine, with what is to be told about them."""

    acquired: Acquired
    trust: TrustResult
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightsStore:
    """Where weights are kept and what is asked of them. The hub is as the environment says at the moment of a fetch."""

    cache: WeightsCache
    manifests: ManifestStore
    policies: Mapping[SourceKind, TrustPolicy]
    allow_remote_code: bool = False

    def fetch(
        self, source: str, convert_gguf: ConvertGguf, on_progress: Progress, native_types: Container[str] = ()
    ) -> Fetched:
        """Have the files of `source` here. `native_types` are the model types that transformers itself has code for.

        A file is judged before it is unpacked, a folder before it is read, a download when it is whole.

        Raises:
            WeightsError: there is no such model, it cannot be fetched, or it must not be loaded.
        """
        origin = find_source(source)
        kind = kind_of(source, origin)
        local = origin.gguf_file or origin.folder
        trust = None if local is None else self._check(local, kind, on_progress, None)
        acquired = acquire(source, self.cache, convert_gguf, on_progress, hub=Hub.from_environment())
        if trust is None:
            known = {file.path: file.sha256 for file in acquired.files if file.sha256 is not None}
            trust = self._check(acquired.folder, kind, on_progress, known)
        code = check_remote_code(acquired.folder, self.allow_remote_code, native_types)
        return Fetched(acquired, trust, trust.warnings if code is None else (*trust.warnings, code.warning))

    @property
    def policy_of_folders(self) -> TrustPolicy:
        """What is asked of local folders."""
        return policy_for(SourceKind.FOLDER, self.policies)

    def _check(
        self, path: Path, kind: SourceKind, on_progress: Progress, known: Mapping[str, str] | None
    ) -> TrustResult:
        return check_trust(path, policy_for(kind, self.policies), self.manifests, on_progress, known)


def kind_of(source: str, origin: Source) -> SourceKind:
    """Whose policy a source falls under."""
    if source == SAMPLE:
        return SourceKind.SAMPLE
    if origin.hub is not None:
        return SourceKind.HUB
    return SourceKind.GGUF if origin.gguf_file is not None else SourceKind.FOLDER


def open_weights(settings: Settings, clock: Clock | None = None) -> WeightsStore:
    """The store of a console's home, as its settings say."""
    root = settings.home / "weights"
    max_bytes = None if settings.weights_max_gib is None else int(settings.weights_max_gib * GIB)
    modes = {
        SourceKind.FOLDER: settings.signatures_folder,
        SourceKind.GGUF: settings.signatures_gguf,
        SourceKind.HUB: settings.signatures_hub,
    }
    keys, certificates = settings.signature_keys, settings.signature_certificates
    return WeightsStore(
        cache=WeightsCache(root, max_bytes, settings.hub_metadata_ttl_s, clock),
        manifests=ManifestStore(root / MANIFESTS),
        policies={kind: TrustPolicy(SignatureMode(mode), keys, certificates) for kind, mode in modes.items()},
        allow_remote_code=settings.allow_remote_code,
    )


def plain_weights(root: Path) -> WeightsStore:
    """A store of its own at `root` that pins digests and asks for no signature."""
    return WeightsStore(WeightsCache(root), ManifestStore(root / MANIFESTS), {})
