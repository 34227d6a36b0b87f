from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.keys import KeyPair, generate_key_pair
from engine.weights.manifest import Changes
from engine.weights.manifest_store import ManifestStore
from engine.weights.signature import Verification, sign_folder
from engine.weights.trust import (
    NO_POLICY,
    SignatureMode,
    SourceKind,
    TrustFacts,
    TrustPolicy,
    check_trust,
    judge_trust,
    policy_for,
    trust_again,
)
from tests.engine.weights.models import FILES, make_folder, quiet

FOLDER, KEY = Path("/models/m"), Path("/keys/release.pub")
BAD = Verification(FOLDER / "model.sig", problems=("/models/m/model.sig proves nothing: there is no signature",))
GOOD = Verification(FOLDER / "model.sig", is_authentic=True)
_PATHS = st.lists(st.sampled_from(["a", "b", "c"]), unique=True).map(tuple)
_FACTS = st.builds(
    TrustFacts,
    st.just(FOLDER),
    st.none() | st.builds(Changes, _PATHS, _PATHS, _PATHS),
    _PATHS,
    st.sampled_from([None, GOOD, BAD]),
    _PATHS,
)


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "release.pem")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "m")


@pytest.fixture
def store(tmp_path: Path) -> ManifestStore:
    return ManifestStore(tmp_path / "weights" / "manifests")


def policy(mode: str, *public_keys: Path) -> TrustPolicy:
    return TrustPolicy(SignatureMode(mode), public_keys)


def refuse_to_read(_stage: str, _fraction: float | None) -> None:
    raise AssertionError("it began to read the weights")


def test_a_change_is_told_with_what_to_do() -> None:
    facts = TrustFacts(FOLDER, Changes(changed=("config.json",)))
    (told,) = judge_trust(NO_POLICY, facts).warnings
    assert told.startswith("/models/m is not as it was trusted: config.json changed; fetch it again, or trust it again")
    assert judge_trust(policy("enforce", KEY), TrustFacts(FOLDER, Changes(), verification=GOOD)).refusals == ()
    assert told in judge_trust(policy("enforce", KEY), facts).refusals


def test_a_mode_without_a_key_says_so() -> None:
    facts = TrustFacts(FOLDER, None, verification=BAD)
    assert judge_trust(policy("off"), facts).warnings == ()
    assert "no public key or certificate is set" in judge_trust(policy("warn"), facts).warnings[0]
    assert "no public key or certificate is set" in judge_trust(policy("enforce"), facts).refusals[0]


@given(_FACTS)
def test_modes_only_move_what_is_said(facts: TrustFacts) -> None:
    off, warn, enforce = (judge_trust(policy(mode, KEY), facts) for mode in SignatureMode)
    assert set(off.warnings) <= set(warn.warnings)
    assert off.refusals == warn.refusals
    assert set(enforce.refusals + enforce.warnings) == set(warn.refusals + warn.warnings)
    is_doubtful = bool(facts.since_trust or facts.against_source or facts.verification is not GOOD)
    assert bool(enforce.refusals) == is_doubtful
    assert bool(off.refusals) == bool(facts.against_source)


def test_a_kind_without_a_policy_pins_and_looks_at_no_signature() -> None:
    policies = {SourceKind.HUB: policy("enforce", KEY)}
    assert policy_for(SourceKind.HUB, policies).mode is SignatureMode.ENFORCE
    assert policy_for(SourceKind.SAMPLE, policies) == TrustPolicy(SignatureMode.OFF)


def test_first_trust_pins_and_later_changes_are_told(folder: Path, store: ManifestStore) -> None:
    first = check_trust(folder, NO_POLICY, store, quiet)
    assert (first.is_first, first.warnings, first.verification) == (True, (), None)
    assert store.pinned(folder) == first.pin
    assert not check_trust(folder, NO_POLICY, store, quiet).is_first
    (folder / "config.json").write_text("{ }")
    changed = check_trust(folder, NO_POLICY, store, quiet)
    assert changed.changes == Changes(changed=("config.json",))
    assert changed.warnings[0].startswith(f"{folder} is not as it was trusted: config.json changed")
    assert changed.pin == first.pin
    again = trust_again(folder, store, quiet)
    assert again.first_trusted_at_s == first.pin.first_trusted_at_s
    assert check_trust(folder, NO_POLICY, store, quiet).warnings == ()


def test_the_quick_comparison_takes_no_time(folder: Path, store: ManifestStore) -> None:
    large = folder / "large.safetensors"
    with large.open("wb") as stream:
        stream.truncate(300 << 20)
    os.utime(large, (0, 0))
    began_s = time.monotonic()
    check_trust(folder, NO_POLICY, store, quiet)
    between_s = time.monotonic()
    check_trust(folder, NO_POLICY, store, quiet)
    assert time.monotonic() - between_s < (between_s - began_s) / 2


def test_a_file_that_is_not_the_sources_is_refused_under_every_mode(
    folder: Path, store: ManifestStore, keys: KeyPair
) -> None:
    sign_folder(folder, keys.private_key)
    known = {"config.json": hashlib.sha256(b"{}").hexdigest(), "not_downloaded.bin": "0" * 64}
    for mode in SignatureMode:
        trusted = TrustPolicy(mode, (keys.public_key,))
        with pytest.raises(WeightsError, match=r"config\.json is not the file that its source published"):
            check_trust(folder, trusted, store, quiet, {"config.json": "0" * 64})
        assert store.pinned(folder) is None
        assert check_trust(folder, trusted, store, quiet, known).is_first
        store.forget(folder)


def test_a_refused_model_is_not_pinned(folder: Path, store: ManifestStore, keys: KeyPair) -> None:
    with pytest.raises(WeightsError, match="there is no signature; fetch the model again, or have it signed"):
        check_trust(folder, policy("enforce", keys.public_key), store, quiet)
    assert store.pinned(folder) is None


def test_without_a_signature_nothing_is_read_under_enforce(folder: Path, store: ManifestStore, keys: KeyPair) -> None:
    for trusted in (policy("enforce", keys.public_key), policy("enforce")):
        with pytest.raises(WeightsError):
            check_trust(folder, trusted, store, refuse_to_read)


def test_enforced_and_signed(folder: Path, store: ManifestStore, keys: KeyPair) -> None:
    sign_folder(folder, keys.private_key)
    found = check_trust(folder, policy("enforce", keys.public_key), store, quiet)
    assert found.is_first
    assert found.verification is not None
    assert found.verification.covered == tuple(sorted(FILES))


def test_enforce_sees_through_kept_times(folder: Path, store: ManifestStore, keys: KeyPair) -> None:
    sign_folder(folder, keys.private_key)
    check_trust(folder, policy("warn", keys.public_key), store, quiet)
    file = folder / "model.safetensors"
    stat = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"W")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert check_trust(folder, policy("warn", keys.public_key), store, quiet).warnings == ()  # the quick comparison
    with pytest.raises(WeightsError) as refusal:
        check_trust(folder, policy("enforce", keys.public_key), store, quiet)
    assert f"{folder} is not as it was trusted: model.safetensors changed" in str(refusal.value)
    assert f"{folder} is not as it was signed: model.safetensors changed" in str(refusal.value)


def test_a_signed_change_waits_for_trust_under_enforce(folder: Path, store: ManifestStore, keys: KeyPair) -> None:
    sign_folder(folder, keys.private_key)
    enforced = policy("enforce", keys.public_key)
    check_trust(folder, enforced, store, quiet)
    (folder / "config.json").write_text("{ }")
    sign_folder(folder, keys.private_key)
    with pytest.raises(WeightsError, match="not as it was trusted"):
        check_trust(folder, enforced, store, quiet)
    trust_again(folder, store, quiet)
    assert not check_trust(folder, enforced, store, quiet).is_first


def test_warn_loads_and_tells(folder: Path, store: ManifestStore, tmp_path: Path, keys: KeyPair) -> None:
    stranger = generate_key_pair(tmp_path / "stranger.pem")
    sign_folder(folder, stranger.private_key)
    (folder / "pytorch_model.bin").touch()
    found = check_trust(folder, policy("warn", keys.public_key), store, quiet)
    assert "which is not the trusted key" in found.warnings[0]
    assert found.warnings[1].endswith("pytorch_model.bin is a pickle, which can run code when opened: it is not loaded")
    with pytest.raises(WeightsError, match="not the trusted key"):
        check_trust(folder, policy("enforce", keys.public_key), store, quiet)


def test_a_single_file(tmp_path: Path, store: ManifestStore) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert check_trust(file, NO_POLICY, store, quiet, {".": hashlib.sha256(b"GGUF").hexdigest()}).is_first
    file.write_bytes(b"GGUF2")
    assert "it changed" in check_trust(file, NO_POLICY, store, quiet).warnings[0]
