"""What a machine is checked against: profiles in TOML, ours beside this module and the user's own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.environment.check import CheckStatus
from engine.errors import ProfileError
from engine.telemetry.nvml import GpuInventory, Nvml

GB = 10**9
AUTO = "auto"
_LARGE_GPU_BYTES = 22 * GB  # what single-gpu-24gb requires
SHIPPED = Path(__file__).parent / "profiles"
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")]


_SENTENCES = {
    "extra_forbidden": "no such key; remove it, or compare its spelling with docs/environment.md",
    "missing": "is missing; every profile needs it",
}
# What pydantic calls a dictionary or a tuple is a table or an array to the writer of a TOML file.
_WANTED = {"model_type": "a table", "tuple_type": "an array"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Bound(_Part):
    """At least so much: below `require` a check fails, below `recommend` it warns. A plain number is `require`."""

    require: float | None = Field(default=None, ge=0)
    recommend: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _from_number(cls, value: object) -> object:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {"require": value} if is_number else value

    @model_validator(mode="after")
    def _ordered(self) -> Bound:
        if self.require is not None and self.recommend is not None and self.recommend < self.require:
            raise ValueError(
                f"recommend = {self.recommend:g} is below require = {self.require:g}: raise it or leave it out"
            )
        return self

    def judge(self, value: float) -> CheckStatus:
        """Fail, warn or pass; a bound itself is met."""
        if self.require is not None and value < self.require:
            return CheckStatus.FAIL
        if self.recommend is not None and value < self.recommend:
            return CheckStatus.WARN
        return CheckStatus.PASS

    def describe(self, unit: str = "") -> str:
        """`at least 32 GB, better 128 GB`; `any` where nothing is asked."""
        gap = " " if unit else ""
        parts = []
        if self.require:
            parts.append(f"at least {self.require:,.15g}{gap}{unit}")
        if self.recommend and self.recommend != self.require:
            parts.append(f"{'better' if parts else 'recommended'} {self.recommend:,.15g}{gap}{unit}")
        return ", ".join(parts) or "any"


def _bound(require: float | None = None, recommend: float | None = None) -> Bound:
    return Bound(require=require, recommend=recommend)


Isa = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # our name for it, or the kernel's own


class HostProfile(_Part):
    """Sizes in decimal gigabytes. `isa` are instruction sets that an x86 processor should have."""

    cores: Bound = _bound(recommend=2)
    isa: tuple[Isa, ...] = ("avx2",)
    memory_total_gb: Bound = _bound()
    memory_available_gb: Bound = _bound(1, 4)
    disk_free_gb: Bound = _bound(2, 10)
    engine_disk_free_gb: Bound = _bound(10)
    inodes_free: Bound = _bound(10_000, 100_000)
    shm_gb: Bound = _bound(recommend=0.064)
    open_files: Bound = _bound(1_024, 4_096)
    max_map_count: Bound = _bound(recommend=65_530)
    clock_skew_max_s: float = Field(default=1.0, gt=0)
    free_ports: tuple[Annotated[int, Field(ge=1, le=65_535)], ...] = ()


class PythonProfile(_Part):
    """The console itself needs 3.11; a profile may ask for more."""

    min_version: Version = "3.11"


GpuDtype = Literal["float32", "float16", "int8", "bfloat16", "float8", "float4"]


class GpuProfile(_Part):
    """What is asked of the GPUs together (`count`) and of each one. `measured_ratio_min` is the share of a card's known
    bandwidth and arithmetic rate under which a measurement warns."""

    count: Bound = _bound()
    memory_gb: Bound = _bound()
    compute_capability_min: Version | None = None
    dtypes: tuple[GpuDtype, ...] = ()
    cuda_min: Version | None = None
    measured_ratio_min: float = Field(default=0.8, gt=0, le=1)

    @property
    def is_required(self) -> bool:
        """Does the profile fail without a GPU."""
        return bool(self.count.require)


class ContainersProfile(_Part):
    """`memory_gb` and `cpus` are of the container that is planned, added to what runs already."""

    required: bool = False
    gpu: bool = False
    memory_gb: float = Field(default=0, ge=0)
    cpus: float = Field(default=0, ge=0)


class KubernetesProfile(_Part):
    """`cpus`, `memory_gb` and `gpus` have to be free on one node."""

    required: bool = False
    namespace: str = Field(default="default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    cpus: Bound = _bound()
    memory_gb: Bound = _bound()
    gpus: Bound = _bound()


class NetworkProfile(_Part):
    """Offline is a mode: what is not `required` is reported and never fails."""

    hub_required: bool = False
    registry: str | None = Field(default=None, min_length=1)
    registry_required: bool = False


class Profile(_Part):
    """What one kind of deployment asks of a machine."""

    title: str = Field(min_length=1)
    description: str = ""
    host: HostProfile = HostProfile()
    python: PythonProfile = PythonProfile()
    gpu: GpuProfile = GpuProfile()
    containers: ContainersProfile = ContainersProfile()
    kubernetes: KubernetesProfile = KubernetesProfile()
    network: NetworkProfile = NetworkProfile()


NO_DEMANDS = Profile(title="No demands", description="Only what the console itself needs.")


def list_profiles(home: Path) -> dict[str, Path]:
    """Every profile by name: ours, then those in the home's folder `profiles`, which win over ours of the same name.
    Hidden files are an editor's, and `auto` is a name that is taken."""
    files = (file for folder in (SHIPPED, home / "profiles") for file in sorted(folder.glob("*.toml")))
    return {file.stem: file for file in files if _is_file(file) and file.name[0] != "." and file.stem != AUTO}


def _is_file(file: Path) -> bool:
    """A link to nothing is one: whoever asks for it is told so."""
    return file.is_file() or (file.is_symlink() and not file.exists())


def find_profile(name: str, home: Path) -> tuple[str, Profile]:
    """A profile by its name, or by the path of its file; with the name it goes by.

    Raises:
        ProfileError: there is none, or it is wrong: the key, the line and the bound.
    """
    known = list_profiles(home)
    if name in known:
        return name, load_profile(known[name])
    if name.endswith(".toml"):
        return Path(name).stem, load_profile(Path(name))
    raise ProfileError(
        f"there is no profile {name!r}: choose {', '.join(known)}, give the path of a .toml file, or put one into "
        f"{home / 'profiles'}"
    )


def resolve_profile(name: str, home: Path, nvml: Nvml) -> tuple[str, Profile]:
    """`find_profile`, where `auto` is the shipped profile that fits the GPUs here.

    Raises:
        ProfileError: as of `find_profile`.
    """
    return find_profile(choose_profile(nvml.read()) if name == AUTO else name, home)


def choose_profile(inventory: GpuInventory) -> str:
    """The shipped profile that fits the GPUs here, for those who name none."""
    gpus = inventory.gpus
    if gpus and all(re.search(r"H[12]00", gpu.name or "") for gpu in gpus):
        return "h100-h200-node"
    is_large = any((gpu.memory_total_bytes or 0) >= _LARGE_GPU_BYTES for gpu in gpus)
    return "single-gpu-24gb" if is_large else "cpu-laptop"


def load_profile(file: Path) -> Profile:
    """Read one profile.

    Raises:
        ProfileError: it cannot be read, is not TOML, or a key is unknown or out of bounds.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ProfileError(f"{file}: cannot be read: {error.strerror or error}; name a file that can be") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{file}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return parse_profile(text, str(file))


def parse_profile(text: str, name: str) -> Profile:
    """The profile in `text`; `name` says in errors where it came from.

    Raises:
        ProfileError: one line per bad key, `name:line: key: what is wrong`.
    """
    try:
        return Profile.model_validate(_tuples(tomllib.loads(text)))
    except ValidationError as error:
        raise ProfileError("\n".join(_explain(text, name, item) for item in error.errors())) from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a plain ValueError to tomllib
        raise ProfileError(f"{name}: not valid TOML: {error}") from error


def _tuples(value: Any) -> Any:
    """TOML's arrays as tuples, which strict frozen models want."""
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _explain(text: str, name: str, error: Any) -> str:
    keys = [str(part) for part in error["loc"]]
    return f"{name}:{find_line(text, keys)}: {'.'.join(keys)}: {_sentence(error)}"


def _sentence(error: Any) -> str:
    if error["type"] in _SENTENCES:
        return _SENTENCES[error["type"]]
    if error["type"] == "value_error":  # ours, and has the values
        return str(error["msg"]).removeprefix("Value error, ")
    is_bound = error.get("ctx", {}).get("class_name") == Bound.__name__
    wanted = "a number, or a table of require and recommend" if is_bound else _WANTED.get(error["type"])
    message = f"should be {wanted}" if wanted else error["msg"]
    return f"{message}, not {error['input']!r}"


def find_line(text: str, keys: list[str]) -> int:
    """The line (from 1) that sets the key, or the nearest table or key above it in the document's tree; else 1.

    `text` is valid TOML. Its lines are read statement by statement, each by tomllib itself, so a string of many lines
    with a `key = value` in it misleads nothing.
    """
    found: dict[tuple[str, ...], int] = {(): 1}
    table: tuple[str, ...] = ()
    for number, statement in _statements(text):
        if statement.lstrip().startswith("["):
            paths = list(_paths(tomllib.loads(statement)))
            table = paths[-1]
        else:
            paths = [table + path for path in _paths(tomllib.loads(statement))]
        for path in paths:
            found.setdefault(path, number)
    return next(found[path] for length in range(len(keys), -1, -1) if (path := tuple(keys[:length])) in found)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each header and each `key = value` with its first line; what does not parse alone goes on in the next line."""
    begin, statement = 1, ""
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        if not statement:
            begin = number
        statement += line + "\n"
        try:
            is_empty = not tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        if not is_empty:
            yield begin, statement
        statement = ""


def _paths(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key below, the outer before the inner."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from _paths(item, (*path, key))
