from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.weights.digests import DigestMemo
from engine.weights.manifest import (
    Changes,
    FileDigest,
    Manifest,
    canonical_json,
    compare,
    list_files,
    make_manifest,
    parse_manifest,
)
from tests.engine.weights.models import FILES, make_folder, quiet

_DIGEST = hashlib.sha256(b"").hexdigest()
_PARTS = st.text(alphabet="abcé._-", min_size=1, max_size=5).filter(lambda part: part not in (".", ".."))
_PATHS = st.lists(_PARTS, min_size=1, max_size=3).map("/".join)
_FILES = st.builds(
    FileDigest, _PATHS, st.integers(0, 2**62), st.binary(max_size=9).map(lambda raw: hashlib.sha256(raw).hexdigest())
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(_DIGEST),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["files", "version", "path", "sha256", "size_bytes"]) | st.text(), inner)
    ),
    max_leaves=12,
)


def entry(**overrides: Any) -> dict[str, Any]:
    return {"path": "a", "sha256": _DIGEST, "size_bytes": 0, **overrides}


def manifest_of(*entries: Any, **overrides: Any) -> str:
    return json.dumps({"files": entries, "version": 1, **overrides})


def test_all_files_but_what_tools_keep(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    for name in (".git/config", ".cache/x", "model.sig", ".gitattributes", ".tmp-123", "original/.tmp-4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    manifest = make_manifest(folder, quiet)
    assert {file.path: file.sha256 for file in manifest.files} == {
        name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()
    }
    assert [file.path for file in manifest.files] == sorted(FILES)
    assert manifest.size_bytes == sum(map(len, FILES.values()))


def test_a_hidden_name_deeper_down_is_a_file_of_the_model(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / "original" / "model.sig").touch()
    assert "original/model.sig" in list_files(folder)


def test_a_single_file_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    assert make_manifest(file, quiet).digests == {".": hashlib.sha256(b"GGUF").hexdigest()}


def test_what_no_model_holds(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="gone is not there: give the path of a model folder"):
        list_files(tmp_path / "gone")
    for spoil, words in (
        (lambda folder: (folder / "x").symlink_to("/etc/passwd"), "leads out of the model folder"),
        (lambda folder: (folder / "x").symlink_to("/etc"), "x links to a folder"),
        (lambda folder: (folder / "x").symlink_to("nowhere"), "x cannot be read: No such file"),
        (lambda folder: os.mkfifo(folder / "x"), "x is not a plain file"),
        (lambda folder: (folder / "a\nb").touch(), "cannot be printed"),
        (lambda folder: (folder / os.fsdecode(b"\xff")).touch(), "cannot be printed"),
    ):
        folder = make_folder(tmp_path / words.replace(" ", "-").replace(":", ""))
        spoil(folder)
        with pytest.raises(WeightsError, match=words):
            list_files(folder)


def test_links_into_the_cache(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    (tmp_path / "blobs").mkdir()
    (folder / "model.safetensors").rename(tmp_path / "blobs" / "f00d")
    (folder / "model.safetensors").symlink_to(tmp_path / "blobs" / "f00d")
    assert make_manifest(folder, quiet, link_roots=[tmp_path / "blobs"]).digests.keys() == FILES.keys()


def test_a_memo_spares_reading_and_the_full_one_reads(tmp_path: Path) -> None:
    folder, memo = make_folder(tmp_path / "m"), DigestMemo(tmp_path / "memo.json")
    honest = make_manifest(folder, quiet, memo)
    file = folder / "model.safetensors"
    stat = file.stat()
    with file.open("r+b") as stream:
        stream.write(b"W")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # whoever changed it hides it
    assert make_manifest(folder, quiet, memo) == honest
    assert compare(honest.digests, make_manifest(folder, quiet).digests) == Changes(changed=("model.safetensors",))


def test_differences() -> None:
    changes = compare({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "d": "4"})
    assert changes == Changes(("b",), ("c",), ("d",))
    assert str(changes) == "b changed, c is missing, d is new"
    assert not compare({"a": "1"}, {"a": "1"})
    assert str(Changes()) == "nothing changed"
    assert str(Changes(added=("a", "b", "c", "d"))) == "4 files are new (a, b, c, ...)"


@given(
    st.dictionaries(_PATHS, st.sampled_from("123"), max_size=6),
    st.dictionaries(_PATHS, st.sampled_from("123"), max_size=6),
)
def test_a_difference_is_told_once_and_turns_around(old: dict[str, str], new: dict[str, str]) -> None:
    there, back = compare(old, new), compare(new, old)
    assert (there.changed, there.missing, there.added) == (back.changed, back.added, back.missing)
    assert set(there.changed + there.missing + there.added) == {
        path for path in old.keys() | new.keys() if old.get(path) != new.get(path)
    }
    assert bool(there) == (old != new)


@given(st.lists(_FILES, max_size=6, unique_by=lambda file: file.path))
def test_a_manifest_survives_its_text_which_is_one(files: list[FileDigest]) -> None:
    manifest = Manifest(tuple(sorted(files)))
    text = manifest.to_json()
    assert parse_manifest(text) == manifest
    shuffled = json.loads(text)
    shuffled["files"].reverse()
    assert parse_manifest(json.dumps(shuffled, indent=2)).to_json() == text
    assert text.isascii()
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "is not JSON"),
        ("[]", "not a table of version 1"),
        ('{"files": [], "version": 2}', "not a table of version 1"),
        ('{"files": [], "files": [], "version": 1}', "gives the key 'files' twice"),
        (manifest_of(more=1), "not a table of version 1"),
        (manifest_of(files={}), "its files are not a list"),
        (manifest_of(3), "does not have path, sha256 and size_bytes"),
        (manifest_of(entry(path="../x")), "names the file '../x', which is refused"),
        (manifest_of(entry(path="/etc/passwd")), "which is refused"),
        (manifest_of(entry(path=3)), "which is refused"),
        (manifest_of(entry(sha256="00")), "is not 64 hexadecimal digits"),
        (manifest_of(entry(sha256=_DIGEST.upper())), "is not 64 hexadecimal digits"),
        (manifest_of(entry(sha256=_DIGEST + "\n")), "is not 64 hexadecimal digits"),
        (manifest_of(entry(size_bytes=-1)), "is not a count of bytes"),
        (manifest_of(entry(size_bytes=True)), "is not a count of bytes"),
        (manifest_of(entry(size_bytes=1.5)), "is not a count of bytes"),
        (manifest_of(entry(size_bytes=2**63)), "is not a count of bytes"),
        (manifest_of(entry(), entry(size_bytes=1)), "names a file twice"),
        ('{"files":' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_manifests_that_are_refused(raw: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        parse_manifest(raw, "pin.json")


@given(_JSON)
def test_no_value_does_worse_than_a_refusal(value: Any) -> None:
    try:
        manifest = parse_manifest(json.dumps(value))
    except WeightsError:
        return
    assert manifest.to_json() == canonical_json(value)


@given(st.binary(max_size=200))
def test_no_bytes_do_worse_than_a_refusal(raw: bytes) -> None:
    with pytest.raises(WeightsError):
        parse_manifest(raw)
