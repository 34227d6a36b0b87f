from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from engine.environment import CheckStatus, EnvironmentReport, __main__
from engine.environment.__main__ import main
from engine.environment.check import Check
from engine.environment.context import CheckContext
from tests.engine.environment.builders import check, fake_nvml, finding, use_checks

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "engine.environment"]
# As in a shell: with this variable Python would write at once, and hide what goes wrong at its end.
VARIABLES = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The statuses that the next report has, none of which comes from this machine; the home is a temporary one."""
    statuses = ["pass"]

    def build(context: CheckContext) -> tuple[Check, ...]:
        observed = f"{context.home} {context.port}"
        return tuple(
            check(f"host.{index}", finding(CheckStatus(status), observed)) for index, status in enumerate(statuses)
        )

    monkeypatch.setattr("engine.environment.report.FAMILIES", {"host": ("Host", build), "gpu": ("GPU", lambda _: ())})
    monkeypatch.setattr(__main__, "Nvml", fake_nvml)
    monkeypatch.setenv("CONSOLE_HOME", str(tmp_path))
    return statuses


Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("status", "is_strict", "code"),
    [
        ("pass", False, 0),
        ("skip", True, 0),
        ("warn", False, 0),
        ("warn", True, 1),
        ("fail", False, 2),
        ("fail", True, 2),
        ("error", False, 2),
    ],
)
def test_exit_code(found: list[str], status: str, is_strict: bool, code: int) -> None:
    found.append(status)
    assert main(["--strict"] if is_strict else []) == code


def test_text_is_the_default(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    assert main([]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"Host\n  PASS   Host.0: {tmp_path} 8501\n\nVerdict for cpu-laptop: pass (1 pass), 0.")
    assert err == ""


def test_json(found: list[str], capsys: Captured) -> None:
    main(["--json"])
    parsed = json.loads(capsys.readouterr().out)
    assert (parsed["verdict"], parsed["profile"], parsed["is_deep"]) == ("pass", "cpu-laptop", False)


def test_markdown(found: list[str], capsys: Captured) -> None:
    found.append("fail")
    assert main(["--markdown"]) == 2
    assert capsys.readouterr().out.startswith("## Environment: fail\n\nProfile cpu-laptop, without deep checks")


def test_json_and_markdown_exclude_each_other(found: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--json", "--markdown"])
    assert ended.value.code == 3
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--colour"], ["--family", "tpu"], ["--profile"], ["extra"]])
def test_bad_arguments_end_in_3(arguments: list[str], capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 3
    assert capsys.readouterr().err.startswith("usage: python -m engine.environment")


def test_help_names_the_exit_codes(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "0 fit, 1 warnings with --strict, 2 unfit or undecided, 3 the tool itself failed" in out


# Profiles and settings


def test_a_profile_by_name_and_by_path(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text('title = "Edge"')
    for wanted, name in (("autoglm-9b", "autoglm-9b"), (str(file), "edge")):
        assert main(["--profile", wanted, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["profile"] == name


def test_the_profile_of_the_settings(found: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_ENVIRONMENT_PROFILE", "single-gpu-24gb")
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["profile"] == "single-gpu-24gb"


def test_without_a_profile_it_is_that_of_the_gpus(
    found: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(__main__, "Nvml", lambda: fake_nvml("NVIDIA H100"))
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["profile"] == "h100-h200-node"


def test_a_bad_profile_is_told_with_its_line(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    file = tmp_path / "edge.toml"
    file.write_text('title = "Edge"\n[host]\nram = 3\n')
    assert main(["--profile", str(file)]) == 3
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"{file}:3: host.ram: no such key; remove it, or compare its spelling with ")


def test_an_unknown_profile_ends_in_3(found: list[str], capsys: Captured) -> None:
    assert main(["--profile", "x"]) == 3
    assert "there is no profile 'x': choose autoglm-9b, cpu-laptop" in capsys.readouterr().err


def test_a_bad_setting_is_told_and_ends_in_3(
    found: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "0")
    assert main([]) == 3
    out, err = capsys.readouterr()
    assert "CONSOLE_PORT" in err
    assert out == ""


def test_a_setting_that_there_is_not_ends_in_3(
    found: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSOLE_COLOUR", "1")
    assert main(["--list"]) == 3
    assert "CONSOLE_COLOUR: there is no such setting" in capsys.readouterr().err


def test_the_home_of_the_command_line_wins(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    main(["--home", str(tmp_path / "other")])
    assert f"{tmp_path / 'other'} 8501" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


def test_the_profiles_are_listed(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "rack.toml").write_text('title = "The rack"')
    (tmp_path / "profiles" / "bad.toml").write_text("title = 3")
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "autoglm-9b",
        "cpu-laptop",
        "h100-h200-node",
        "single-gpu-24gb",
        "bad",
        "rack",
    ]
    assert lines[-1] == "rack                 The rack"
    assert "cannot be used: " in lines[-2]
    assert ":1: title:" in lines[-2]


def test_families_and_deep_checks(found: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    use_checks(monkeypatch, check("host.a"), check("gpu.b"), check("gpu.slow", is_deep=True), check("network.c"))
    main(["--json", "--family", "gpu", "--family", "host", "--deep"])
    assert [one["id"] for one in json.loads(capsys.readouterr().out)["checks"]] == ["host.a", "gpu.b", "gpu.slow"]


# JUnit


def test_junit_is_written_beside_what_is_printed(found: list[str], capsys: Captured, tmp_path: Path) -> None:
    found.append("fail")
    file = tmp_path / "junit.xml"
    assert main(["--junit", str(file), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"] == "fail"
    assert [suite.get("failures") for suite in ElementTree.parse(file).getroot()] == ["1"]


@pytest.mark.parametrize("name", ["none/junit.xml", "."])
def test_junit_that_cannot_be_written_ends_in_3_after_the_report(
    found: list[str], capsys: Captured, tmp_path: Path, name: str
) -> None:
    assert main(["--junit", str(tmp_path / name)]) == 3
    out, err = capsys.readouterr()
    assert "Verdict for cpu-laptop: pass" in out
    assert err.startswith(f"{tmp_path / name}: cannot be written: ")
    assert err.endswith("; name a file that can be\n")
    assert err.count("\n") == 1


# What goes wrong


def test_a_fault_of_the_tool_is_not_a_warning(
    found: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: CheckContext) -> tuple[Check, ...]:
        raise KeyError("cores")

    monkeypatch.setattr("engine.environment.report.FAMILIES", {"host": ("Host", broken)})
    assert main([]) == 3
    assert "this is a fault of the tool" in caplog.text
    assert "KeyError" in caplog.text


def test_an_interrupt_is_one_line(found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupted(*_: object) -> EnvironmentReport:
        raise KeyboardInterrupt

    monkeypatch.setattr(__main__, "collect_report", interrupted)
    assert main([]) == 130
    assert capsys.readouterr() == ("", "interrupted: no report was taken\n")


def test_progress_is_told_to_a_terminal_only(
    found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    main([])
    assert capsys.readouterr().err == "PASS   Host.0, 0.0 s\n"


# As a process of its own


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=ROOT,
        env={**VARIABLES, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def passing_profile(tmp_path: Path) -> Path:
    file = tmp_path / "easy.toml"
    file.write_text('title = "Easy: büro → 机器"\n')
    return file


def test_one_command_gives_the_report_of_this_machine(tmp_path: Path) -> None:
    done = run("--home", str(tmp_path), "--markdown", "--profile", "cpu-laptop")
    assert done.returncode in (0, 2), done.stderr
    assert done.stdout.startswith("## Environment: ")
    assert done.stderr == ""


def test_a_machine_that_is_not_fit_ends_in_2(tmp_path: Path) -> None:
    (tmp_path / "huge.toml").write_text('title = "Huge"\n[host]\nmemory_available_gb = 1_000_000\n')
    done = run("--home", str(tmp_path), "--profile", str(tmp_path / "huge.toml"), "--family", "host", "--json")
    assert done.returncode == 2, done.stderr
    assert json.loads(done.stdout)["verdict"] == "fail"


def test_a_bad_variable_ends_a_process_in_3(tmp_path: Path) -> None:
    done = run("--home", str(tmp_path), CONSOLE_TELEMETRY_INTERVAL_S="never")
    assert (done.returncode, done.stdout) == (3, "")
    assert "CONSOLE_TELEMETRY_INTERVAL_S" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--list"], ["--json", "--family", "host"], ["--family", "host"]])
def test_a_reader_that_leaves_early_is_no_failure(arguments: list[str], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as broken:
        done = subprocess.run(
            [*COMMAND, *arguments, "--home", str(tmp_path), "--junit", str(tmp_path / "junit.xml")],
            cwd=ROOT,
            env=VARIABLES,
            stdout=broken,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode in (0, 2)
    assert (tmp_path / "junit.xml").exists() is ("--list" not in arguments)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "--list", "--home", str(tmp_path)],
            cwd=ROOT,
            env=VARIABLES,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (3, "the report cannot be printed: No space left on device\n")


def test_a_terminal_of_few_characters_gets_question_marks(passing_profile: Path, tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    passing_profile.rename(tmp_path / "profiles" / "easy.toml")
    done = run("--list", "--home", str(tmp_path), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Easy: b?ro ? ??" in done.stdout


def test_ctrl_c_ends_a_run_in_one_line(tmp_path: Path) -> None:
    script = (
        "import signal, sys, threading\n"
        "from engine.environment import report\n"
        "from engine.environment.__main__ import main\n"
        "from engine.environment.check import Check\n"
        "def hang():\n"
        "    print('begun', flush=True)\n"
        "    threading.Event().wait()\n"
        "report.FAMILIES.clear()\n"
        "report.FAMILIES['host'] = ('Host', lambda context: (Check('host.a', 'A', 'to end', hang, 60),))\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is born ignoring it\n"
        "sys.exit(main(['--home', sys.argv[1]]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (130, "", "interrupted: no report was taken\n")
