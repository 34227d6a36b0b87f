from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.environment.gpu.cuda import (
    FAMILY_DRIVER,
    TOOLKIT_DRIVER,
    Compatibility,
    CompatPackage,
    find_compatibility,
    is_at_least,
    parse_version,
    read_compat_package,
    toolkit_driver,
)

PACKAGE = CompatPackage("/usr/local/cuda-13.0/compat", "580.65.06", is_on_path=True)
versions = st.lists(st.integers(0, 999), min_size=1, max_size=4)


@pytest.mark.parametrize(
    ("cuda", "driver", "holds"),
    [
        ("13.0", "580.65.06", Compatibility.NATIVE),
        ("13.0", "580.95.05", Compatibility.NATIVE),
        ("13.0", "575.57.08", Compatibility.TOO_OLD),
        ("13.2", "580.95.05", Compatibility.MINOR),
        ("12.8", "570.26", Compatibility.NATIVE),
        ("12.8", "550.54.15", Compatibility.MINOR),
        ("12.8", "525.60.13", Compatibility.MINOR),
        ("12.8", "525.60.11", Compatibility.TOO_OLD),
        ("12.8", "580.95.05", Compatibility.NATIVE),
        ("11.8", "450.80.02", Compatibility.MINOR),
        ("11.8", "450.51.06", Compatibility.TOO_OLD),
    ],
)
def test_the_tables_decide(cuda: str, driver: str, holds: Compatibility) -> None:
    assert find_compatibility(cuda, driver, None, None, is_data_center=True) is holds


@pytest.mark.parametrize(
    ("driver_cuda", "holds"),
    [
        ("13.9", Compatibility.NATIVE),
        ("13.0", Compatibility.MINOR),
        ("12.8", Compatibility.TOO_OLD),
        (None, Compatibility.UNKNOWN),
    ],
)
def test_a_release_that_is_not_in_the_table_goes_by_the_drivers_cuda(
    driver_cuda: str | None, holds: Compatibility
) -> None:
    assert find_compatibility("13.9", "999.1", driver_cuda, None, is_data_center=True) is holds
    assert find_compatibility("13.0", None, None, None, is_data_center=True) is Compatibility.UNKNOWN


def test_the_package_counts_on_data_center_cards_with_its_path_set() -> None:
    def holds(package: CompatPackage, is_data_center: bool = True) -> Compatibility:
        return find_compatibility("13.0", "535.54.03", "12.2", package, is_data_center)

    assert holds(PACKAGE) is Compatibility.FORWARD
    assert holds(PACKAGE, is_data_center=False) is Compatibility.TOO_OLD
    assert holds(CompatPackage(PACKAGE.folder, "580.65.06", is_on_path=False)) is Compatibility.TOO_OLD
    assert holds(CompatPackage(PACKAGE.folder, "550.54.14", is_on_path=True)) is Compatibility.TOO_OLD


@given(versions, versions)
def test_versions_compare_as_numbers(left: list[int], right: list[int]) -> None:
    one, other = ".".join(map(str, left)), ".".join(map(str, right))
    assert is_at_least(one, other) or is_at_least(other, one)
    assert is_at_least(one, one + ".0")
    assert parse_version(f"{one}-open") == tuple(left)


def test_no_number_is_the_oldest_version() -> None:
    assert parse_version("unknown") == ()
    assert not is_at_least("unknown", "1")


@given(st.sampled_from(sorted(TOOLKIT_DRIVER)), st.sampled_from(sorted(TOOLKIT_DRIVER)))
def test_newer_releases_never_ask_for_older_drivers(one: tuple[int, int], other: tuple[int, int]) -> None:
    newer, older = max(one, other), min(one, other)
    assert is_at_least(TOOLKIT_DRIVER[newer], TOOLKIT_DRIVER[older])


@given(st.sampled_from(sorted(FAMILY_DRIVER)))
def test_each_family_begins_with_its_first_release(major: int) -> None:
    first = toolkit_driver(f"{major}.0")
    assert first is not None
    assert is_at_least(FAMILY_DRIVER[major], first)


def _install(root: Path, folder: str, version: str) -> Path:
    path = root / folder
    path.mkdir(parents=True)
    (path / f"libcuda.so.{version}").touch()
    (path / "libcuda.so.1").symlink_to(f"libcuda.so.{version}")
    return path


def test_a_package_is_found_with_and_without_the_path(tmp_path: Path) -> None:
    assert read_compat_package(tmp_path, {}) is None
    _install(tmp_path, "usr/local/cuda-13.0/compat", "580.65.06")
    found = read_compat_package(tmp_path, {"LD_LIBRARY_PATH": "/usr/lib"})
    assert found == CompatPackage("/usr/local/cuda-13.0/compat", "580.65.06", is_on_path=False)
    found = read_compat_package(tmp_path, {"LD_LIBRARY_PATH": "/usr/lib:/usr/local/cuda-13.0/compat"})
    assert found == PACKAGE


def test_the_one_on_the_path_comes_before_the_newest(tmp_path: Path) -> None:
    _install(tmp_path, "usr/local/cuda-13.0/compat", "580.65.06")
    _install(tmp_path, "usr/local/cuda-12.4/compat", "550.54.14")
    found = read_compat_package(tmp_path, {"LD_LIBRARY_PATH": "/usr/local/cuda-12.4/compat"})
    assert found == CompatPackage("/usr/local/cuda-12.4/compat", "550.54.14", is_on_path=True)


def test_the_loaders_configuration_counts_as_the_path(tmp_path: Path) -> None:
    _install(tmp_path, "usr/local/cuda-13.0/compat", "580.65.06")
    configuration = tmp_path / "etc/ld.so.conf.d/cuda-compat.conf"
    configuration.parent.mkdir(parents=True)
    configuration.write_text("# NVIDIA\n/usr/local/cuda-13.0/compat\n", encoding="utf-8")
    found = read_compat_package(tmp_path, {})
    assert found is not None
    assert found.is_on_path


def test_a_folder_without_the_library_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "usr/local/cuda/compat").mkdir(parents=True)
    assert read_compat_package(tmp_path, {}) is None
