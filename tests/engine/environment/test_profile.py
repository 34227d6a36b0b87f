from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.check import CheckStatus
from engine.environment.profile import (
    SHIPPED,
    Bound,
    Profile,
    choose_profile,
    find_line,
    find_profile,
    list_profiles,
    load_profile,
    parse_profile,
)
from engine.errors import ProfileError
from tests.engine.environment.builders import fake_nvml

SHIPPED_NAMES = ("autoglm-9b", "cpu-laptop", "h100-h200-node", "single-gpu-24gb")
numbers = st.floats(min_value=0, max_value=1e15)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "profiles").mkdir()
    return tmp_path


def refusal(text: str) -> str:
    with pytest.raises(ProfileError) as refused:
        parse_profile(text, "p.toml")
    return str(refused.value)


# The profiles that come along


def test_these_profiles_are_shipped(tmp_path: Path) -> None:
    assert tuple(list_profiles(tmp_path)) == SHIPPED_NAMES


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_a_shipped_profile_loads_and_says_whom_it_is_for(name: str, tmp_path: Path) -> None:
    found, profile = find_profile(name, tmp_path)
    assert found == name
    assert len(profile.title) > 10
    assert len(profile.description) > 40
    assert "\n" not in profile.description.strip()


def test_what_open_autoglm_asks_for() -> None:
    profile = load_profile(SHIPPED / "autoglm-9b.toml")
    assert profile.gpu.memory_gb == Bound(require=24, recommend=40)
    assert profile.gpu.is_required
    assert profile.gpu.cuda_min == "11.8"
    assert set(profile.gpu.dtypes) == {"float16", "bfloat16"}
    assert profile.host.memory_total_gb.recommend == 128
    assert profile.python.min_version == "3.9"


def test_the_cards_that_open_autoglm_names(tmp_path: Path) -> None:
    memory = find_profile("autoglm-9b", tmp_path)[1].gpu.memory_gb
    assert [memory.judge(gigabytes) for gigabytes in (16, 24, 40, 80)] == ["fail", "warn", "pass", "pass"]


@pytest.mark.parametrize(("name", "is_required"), [("cpu-laptop", False), ("single-gpu-24gb", True)])
def test_only_profiles_of_gpus_need_one(name: str, is_required: bool, tmp_path: Path) -> None:
    assert find_profile(name, tmp_path)[1].gpu.is_required is is_required


@pytest.mark.parametrize(
    ("gpus", "name"),
    [
        ((), "cpu-laptop"),
        (("NVIDIA H100 80GB HBM3",), "h100-h200-node"),
        (("NVIDIA H200",) * 8, "h100-h200-node"),
        (("NVIDIA GH200 480GB",), "h100-h200-node"),
        (("NVIDIA GeForce RTX 4090",), "single-gpu-24gb"),
        (("NVIDIA H200", "NVIDIA T4"), "single-gpu-24gb"),
        (("NVIDIA A100-SXM4-80GB",) * 2, "single-gpu-24gb"),
    ],
)
def test_the_profile_that_fits_the_gpus(gpus: tuple[str, ...], name: str) -> None:
    assert choose_profile(fake_nvml(*gpus).read()) == name


# Where profiles are found


def test_a_profile_of_the_home_wins_over_ours(home: Path) -> None:
    (home / "profiles" / "cpu-laptop.toml").write_text('title = "Mine"')
    (home / "profiles" / "rack.toml").write_text('title = "The rack"\n[gpu]\ncount = 8')
    assert tuple(list_profiles(home)) == (*SHIPPED_NAMES, "rack")
    assert find_profile("cpu-laptop", home)[1].title == "Mine"
    assert find_profile("rack", home)[1].gpu.count.require == 8


def test_a_profile_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "edge.box.toml"
    file.write_text('title = "Edge"')
    assert find_profile(str(file), tmp_path) == ("edge.box", Profile(title="Edge"))


@pytest.mark.parametrize("name", ["nothing", "", "auto", "../cpu-laptop", "cpu-laptop.yaml"])
def test_an_unknown_name_is_told_what_there_is(name: str, home: Path) -> None:
    with pytest.raises(ProfileError) as refused:
        find_profile(name, home)
    assert str(refused.value).startswith(f"there is no profile {name!r}: choose {', '.join(SHIPPED_NAMES)}, give")
    assert str(home / "profiles") in str(refused.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"/none\.toml: cannot be read: No such file or directory; name a file"):
        find_profile(str(tmp_path / "none.toml"), tmp_path)


def test_a_folder_is_no_profile(home: Path) -> None:
    folder = home / "profiles" / "x.toml"
    folder.mkdir()
    assert "x" not in list_profiles(home)
    with pytest.raises(ProfileError, match=r"x\.toml: cannot be read: Is a directory"):
        find_profile(str(folder), home)


def test_a_link_to_nothing_is_told_by_name(home: Path) -> None:
    (home / "profiles" / "gone.toml").symlink_to(home / "nowhere")
    with pytest.raises(ProfileError, match=r"gone\.toml: cannot be read: No such file"):
        find_profile("gone", home)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = tmp_path / "secret.toml"
    file.write_text('title = "x"')
    file.chmod(0)
    with pytest.raises(ProfileError, match="cannot be read: Permission denied"):
        load_profile(file)


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b'title = "B\xfcro"')
    with pytest.raises(ProfileError, match=r"latin\.toml: is not UTF-8 text: invalid start byte at byte 10"):
        load_profile(file)


def test_a_file_of_a_windows_editor(tmp_path: Path) -> None:
    file = tmp_path / "windows.toml"
    file.write_bytes(b'\xef\xbb\xbftitle = "Windows"\r\n[host]\r\ncores = 2\r\n')
    assert load_profile(file).host.cores.require == 2


# What is refused, and where


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("", "p.toml:1: title: is missing"),
        ('title = ""', "p.toml:1: title: String should have at least 1 character, not ''"),
        ('title = "x"\n\ncolour = 1', "p.toml:3: colour: no such key; remove it, or compare its spelling"),
        ('title = "x"\n[host]\n# here\nram_gb = 3', "p.toml:4: host.ram_gb: no such key"),
        ('title = "x"\nhost = 3', "p.toml:2: host: should be a table, not 3"),
        ('title = "x"\n[host]\ncores = "4"', "p.toml:3: host.cores: should be a number, or a table of require"),
        (
            'title = "x"\n[host]\ncores = true',
            "p.toml:3: host.cores: should be a number, or a table of require",
        ),
        ('title = "x"\n[host]\ncores = -1', "p.toml:3: host.cores.require: Input should be greater than or equal to 0"),
        ('title = "x"\n[host]\ncores = nan', "p.toml:3: host.cores.require: Input should be a finite number, not nan"),
        ('title = "x"\n[host]\ncores = inf', "p.toml:3: host.cores.require: Input should be a finite number, not inf"),
        ('title = "x"\n[host]\ncores = { require = 4, recommed = 8 }', "p.toml:3: host.cores.recommed: no such key"),
        ('title = "x"\n[host]\nisa = "avx2"', "p.toml:3: host.isa: should be an array, not 'avx2'"),
        ('title = "x"\n[host]\nfree_ports = [80, 70000]', "p.toml:3: host.free_ports.1: Input should be less than or"),
        ('title = "x"\n[gpu]\ncuda_min = 12.4', "p.toml:3: gpu.cuda_min: Input should be a valid string, not 12.4"),
        ('title = "x"\n[gpu]\ncuda_min = "12.x"', "p.toml:3: gpu.cuda_min: String should match pattern"),
        ('title = "x"\n[containers]\ngpu = 1', "p.toml:3: containers.gpu: Input should be a valid boolean, not 1"),
        ('title = "x"\n[kubernetes]\nnamespace = "A_B"', "p.toml:3: kubernetes.namespace: String should match pattern"),
    ],
)
def test_a_wrong_key_is_told_with_its_line(text: str, refused: str) -> None:
    assert refusal(text).startswith(refused)


def test_a_recommendation_below_the_requirement_is_refused_with_both() -> None:
    text = 'title = "x"\n[host]\ncores = { require = 8, recommend = 4 }'
    assert refusal(text) == ("p.toml:3: host.cores: recommend = 4 is below require = 8: raise it or leave it out")


def test_every_wrong_key_has_a_line_of_its_own() -> None:
    lines = refusal('title = "x"\na = 1\n[host]\nb = 2\n[gpu]\nc = 3').splitlines()
    assert [line.rsplit(": ", 1)[0] for line in lines] == ["p.toml:4: host.b", "p.toml:6: gpu.c", "p.toml:2: a"]


@pytest.mark.parametrize(
    "text", ['title = "x', "title", 'title = "x"\ntitle = "y"', "a = " + "[" * 5_000, "a = " + "1" * 5_000]
)
def test_what_is_not_toml(text: str) -> None:
    assert refusal(text).startswith("p.toml: not valid TOML: ")


def test_what_is_not_toml_has_its_line() -> None:
    assert "(at line 3, column" in refusal('title = "x"\n[host]\ncores = \n')


LAYOUTS = '''\
title = "x"  # host.cores = 1
description = """
[host]
cores = "not this one"
title = 'nor this'"""
gpu.count = 1
"gpu".'memory_gb' = { require = 24, recommend = 40 }
host = { cores = 4, shm_gb = { recommend = 1 } }

  [ network ]
    "registry" = "a # b = [c]"

[python]   # a comment with [brackets] and "quotes"
min_version = "3.11"

[kubernetes . cpus]
require = 4
recommend = 8

[containers]
list = [
  "a = b",
  "]",
  [1, 2],
  "[host]",
]
"a.b" = 1
"q\\u0041" = 2
memory_gb = 3
text = \'\'\'
memory_gb = 4\'\'\'
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("title", 1),
        ("description", 2),
        ("gpu", 6),
        ("gpu.count", 6),
        ("gpu.count.require", 6),
        ("gpu.memory_gb", 7),
        ("gpu.memory_gb.recommend", 7),
        ("host", 8),
        ("host.cores", 8),
        ("host.shm_gb.recommend", 8),
        ("network", 10),
        ("network.registry", 11),
        ("network.nothing", 10),
        ("python.min_version", 14),
        ("kubernetes", 16),
        ("kubernetes.cpus", 16),
        ("kubernetes.cpus.recommend", 18),
        ("containers", 20),
        ("containers.list.2.1", 21),
        ("containers.qA", 28),
        ("containers.memory_gb", 29),
        ("containers.text", 30),
        ("nothing.at.all", 1),
    ],
)
def test_the_line_of_a_key(key: str, line: int) -> None:
    tomllib.loads(LAYOUTS)
    assert find_line(LAYOUTS, key.split(".")) == line
    assert find_line(LAYOUTS.replace("\n", "\r\n"), key.split(".")) == line


def test_the_line_of_a_key_with_a_dot_in_it() -> None:
    assert find_line(LAYOUTS, ["containers", "a.b"]) == 27


def test_a_line_separator_inside_a_string_is_no_line() -> None:
    assert find_line('title = "a\u2028b\u0085c"\nbad = 1', ["bad"]) == 2


# A valid profile, written in any of the ways that TOML has, and one bad key somewhere in it.

VALUES: dict[str, dict[str, Any]] = {
    "host": {"cores": 4, "memory_total_gb": {"require": 32, "recommend": 128}, "isa": ["avx2"], "free_ports": [80]},
    "gpu": {"count": 1, "dtypes": ["float16", "bfloat16"], "cuda_min": "11.8", "memory_gb": {"recommend": 40}},
    "network": {"hub_required": True, "registry": "a = b [c] # d"},
    "kubernetes": {"namespace": "models", "cpus": {"require": 2}},
}
FILLERS = ("", "# cores = 1", "   # [host]", "\t", '# """')
TEXTS = ('"plain"', "'# [x] a = 1'", '"""\n[gpu]\nbad = 1\n# """', "'''\nhost.bad = 2\n'''", '"a \\"bad = 3"')


def toml(value: Any, draw: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item, draw)}" for key, item in value.items()) + " }"
    if isinstance(value, list) and draw(st.booleans()):
        return "[\n" + "".join(f"  {toml(item, draw)},  # [a] = b\n" for item in value) + "]"
    return json.dumps(value)


def quoted(key: str, draw: Any) -> str:
    return draw(st.sampled_from((key, f'"{key}"', f"'{key}'")))  # type: ignore[no-any-return]


@st.composite
def planted(draw: Any) -> tuple[str, str, int]:
    """A profile's text with one unknown key; the key's whole name and its line."""
    names = draw(st.permutations(sorted(VALUES)))
    victim = draw(st.sampled_from(names))
    statements: list[str] = [f"title = {draw(st.sampled_from(TEXTS))}", f"description = {draw(st.sampled_from(TEXTS))}"]
    tables: list[str] = []
    for name in names:
        is_table = draw(st.booleans())
        lines = []
        for key, value in VALUES[name].items():
            prefix = "" if is_table else f"{quoted(name, draw)}{draw(st.sampled_from(('.', ' . ')))}"
            if isinstance(value, dict) and draw(st.booleans()):
                lines += [f"{prefix}{key}.{inner} = {toml(item, draw)}" for inner, item in value.items()]
            else:
                lines.append(f"{prefix}{quoted(key, draw)} = {toml(value, draw)}")
        if name == victim:
            bad = f"{'' if is_table else name + '.'}{quoted('bad', draw)} = {draw(st.sampled_from(TEXTS))}  # BAD"
            lines.insert(draw(st.integers(0, len(lines))), bad)
        if is_table:
            tables += [f"[{quoted(name, draw)}]  # a = [b]", *lines]
        else:
            statements += lines
    written: list[str] = []
    for statement in (*statements, *tables):
        written += [*draw(st.lists(st.sampled_from(FILLERS), max_size=2)), statement]
    text = "\n".join(written) + "\n"
    before = next(index for index, statement in enumerate(written) if statement.endswith("# BAD"))
    line = sum(statement.count("\n") + 1 for statement in written[:before]) + 1
    return text, f"{victim}.bad", line


@given(planted(), st.sampled_from(["\n", "\r\n"]))
def test_one_bad_key_anywhere_is_named_with_its_line(case: tuple[str, str, int], line_end: str) -> None:
    text, key, line = case
    assert refusal(text.replace("\n", line_end)).startswith(f"p.toml:{line}: {key}: no such key")


@given(st.text())
def test_any_text_is_a_profile_or_refused(text: str) -> None:
    try:
        parse_profile(text, "p.toml")
    except ProfileError as error:
        refused = str(error)
    else:
        return
    assert refused.startswith("p.toml:")


# Bounds


@given(value=numbers, bounds=st.tuples(numbers, numbers))
def test_judging_follows_the_bounds(value: float, bounds: tuple[float, float]) -> None:
    require, recommend = sorted(bounds)
    status = Bound(require=require, recommend=recommend).judge(value)
    assert (status is CheckStatus.FAIL) is (value < require)
    assert (status is CheckStatus.PASS) is (value >= recommend)
    assert status in (CheckStatus.PASS, CheckStatus.WARN, CheckStatus.FAIL)


@given(value=numbers, bound=numbers)
def test_half_a_bound_judges_for_itself(value: float, bound: float) -> None:
    assert Bound(require=bound).judge(value) is (CheckStatus.FAIL if value < bound else CheckStatus.PASS)
    assert Bound(recommend=bound).judge(value) is (CheckStatus.WARN if value < bound else CheckStatus.PASS)
    assert Bound().judge(value) is CheckStatus.PASS


@pytest.mark.parametrize(
    ("bound", "unit", "text"),
    [
        (Bound(), "GB", "any"),
        (Bound(require=0), "GB", "any"),
        (Bound(require=32, recommend=128), "GB", "at least 32 GB, better 128 GB"),
        (Bound(require=4), "", "at least 4"),
        (Bound(require=4, recommend=4), "", "at least 4"),
        (Bound(recommend=0.064), "GB", "recommended 0.064 GB"),
        (Bound(require=65_530), "", "at least 65,530"),
        (
            Bound(require=1e12, recommend=123_456_789_012_345),
            "B",
            "at least 1,000,000,000,000 B, better 123,456,789,012,345 B",
        ),
    ],
)
def test_a_bound_in_words(bound: Bound, unit: str, text: str) -> None:
    assert bound.describe(unit) == text


def test_a_profile_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Profile(title="x").title = "y"
