"""`python -m engine.models`: exit codes, what is printed where, and that each command does what its page does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.models.__main__ import Progress, main
from engine.models.spec import Scheme
from engine.weights.keys import KeyPair, generate_key_pair
from tests.engine.weights.hub_models import REPO, model_files
from tests.engine.weights.hub_server import serve_hub
from tests.fakes import save_tiny_llama

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    monkeypatch.setenv("CONSOLE_HOME", str(folder))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny_llama(tmp_path / "tiny")


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return generate_key_pair(tmp_path / "keys.pem")


def _json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_list_of_nothing(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "the weights cache is empty\n"
    assert _json(capsys, "list") == (0, [])
    assert not home.exists()


def test_a_model_of_the_hub_is_planned_before_and_after_it_is_pulled(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: Path, home: Path
) -> None:
    plan = ["plan", REPO, "--device", "cpu", "--context", "128"]
    assert main(plan) == 3
    assert "the hub is switched off by HF_HUB_OFFLINE=1: unset it" in capsys.readouterr().err
    assert not home.exists()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.publish(REPO, {file.name: file.read_bytes() for file in model.iterdir()})
        _, before = _json(capsys, *plan)
        assert before["download"]["left_bytes"] == before["download"]["total_bytes"] > 0
        assert main(plan) == 0
        assert f"\nNot here yet: pulling {REPO}@main downloads " in capsys.readouterr().out
        assert main(["list"]) == 0
        assert capsys.readouterr().out == "the weights cache is empty\n"
        assert main(["pull", REPO]) == 0
        capsys.readouterr()
    code, found = _json(capsys, *plan)  # the hub is not there any more
    assert (found["download"], found["lines"]) == (None, before["lines"])
    assert (code, found["name"], found["verdict"]) == (0, "tiny", "fits")
    assert found["lines"] == _json(capsys, "plan", str(model), *plan[2:])[1]["lines"]


def test_pull_list_and_verify(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with serve_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        commit = hub.publish(REPO, model_files())
        assert main(["pull", REPO, "--json"]) == 0
    captured = capsys.readouterr()
    data = json.loads(captured.out)
    assert commit.startswith(data["revision"])
    assert data["size_bytes"] == sum(file.stat().st_size for file in Path(data["folder"]).rglob("*") if file.is_file())
    assert captured.err
    code, entries = _json(capsys, "list")
    assert (code, [entry["kind"] for entry in entries], entries[0]["is_in_use"]) == (0, ["download"], False)
    assert entries[0]["size_bytes"] == data["size_bytes"]
    assert main(["verify"]) == 0
    assert "as it should be (1 entries)" in capsys.readouterr().out
    shard = Path(data["folder"]) / "model-00001-of-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.resolve().write_bytes(content)
    code, found = _json(capsys, "verify")
    assert (code, found["is_good"]) == (2, False)
    assert [damage["path"] for damage in found["damages"]] == [shard.name]


def test_pull_offline_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", "acme/tiny"]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("python -m engine.models: ")
    assert "HF_HUB_OFFLINE" in captured.err


def test_a_plan_that_fits(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    arguments = ["plan", str(model), "--device", "cpu", "--context", "256", "--concurrency", "2"]
    assert main(arguments) == 0
    assert "tiny fits on the CPU" in capsys.readouterr().out
    code, plan = _json(capsys, *arguments, "--dtype", "bfloat16", "--quantization", "int8-weight")
    assert (code, plan["fits"], plan["placement"]["dtype"]) == (0, True, "bfloat16")
    assert (plan["demand"]["context_tokens"], plan["demand"]["concurrency"]) == (256, 2)
    assert plan["placement"]["quantization"]["scheme"] == "int8-weight"


def test_a_plan_that_does_not_fit(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    arguments = ["plan", str(model), "--device", "cpu", "--context", "100000", "--concurrency", "100000000"]
    code, plan = _json(capsys, *arguments)
    assert (code, plan["fits"]) == (2, False)
    assert plan["reasons"]


def test_details_of_a_quantization(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    base = ["plan", str(model), "--device", "cpu", "--quantization", "int8-weight"]
    details = ["--granularity", "group", "--group-size", "64", "--affine", "--keep", "lm_head", "--keep", "o_proj"]
    _, plan = _json(capsys, *base, *details)
    chosen = plan["placement"]["quantization"]
    assert (chosen["granularity"], chosen["group_size"], chosen["is_symmetric"]) == ("group", 64, False)
    assert chosen["keep"] == ["lm_head", "o_proj"]
    assert main(["plan", str(model), "--affine"]) == 3
    assert "name its scheme with --quantization" in capsys.readouterr().err


def test_sign_and_verify(capsys: pytest.CaptureFixture[str], model: Path, keys: KeyPair) -> None:
    code, signed = _json(capsys, "sign", str(model), "--private-key", str(keys.private_key))
    assert (code, signed["signer"]) == (0, keys.fingerprint)
    check = ["verify", str(model), "--public-key", str(keys.public_key)]
    assert main(check) == 0
    assert keys.fingerprint in capsys.readouterr().out
    (model / "config.json").write_text("{}")
    assert main(check) == 2
    assert "config.json changed" in capsys.readouterr().out
    code, found = _json(capsys, *check)
    assert (code, found["is_authentic"], found["changes"]["changed"]) == (2, True, ["config.json"])


def test_verify_with_another_key_or_none(
    capsys: pytest.CaptureFixture[str], model: Path, keys: KeyPair, tmp_path: Path
) -> None:
    other = generate_key_pair(tmp_path / "other.pem")
    assert main(["verify", str(model), "--public-key", str(keys.public_key)]) == 2
    assert main(["sign", str(model), "--private-key", str(other.private_key)]) == 0
    assert main(["verify", str(model), "--public-key", str(keys.public_key)]) == 2
    assert main(["verify", str(model)]) == 3
    assert "give --public-key FILE or --certificate FILE" in capsys.readouterr().err


def test_the_password_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = generate_key_pair(tmp_path / "locked.pem", "s3cret")
    arguments = ["sign", str(model), "--private-key", str(keys.private_key)]
    assert main(arguments) == 3
    monkeypatch.setenv("MODEL_SIGNING_PASSWORD", "s3cret")
    assert main(arguments) == 0
    assert "s3cret" not in "".join(capsys.readouterr())


def test_a_key_pair_is_made_and_signs(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "release.pem"
    monkeypatch.setenv("MODEL_SIGNING_PASSWORD", "s3cret")
    code, made = _json(capsys, "keygen", str(private))
    assert (code, made["private_key"], made["has_password"]) == (0, str(private), True)
    assert private.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in private.read_bytes()
    assert main(["sign", str(model), "--private-key", str(private)]) == 0
    monkeypatch.delenv("MODEL_SIGNING_PASSWORD")
    check = ["verify", str(model), "--public-key", made["public_key"]]
    assert main(check) == 0
    captured = capsys.readouterr()
    assert made["fingerprint"] in captured.out
    assert "s3cret" not in "".join(captured)
    (model / "config.json").write_text("{}")
    assert main(check) == 2


def test_a_key_is_never_overwritten_nor_left_without_a_password_unasked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_SIGNING_PASSWORD", raising=False)
    private = tmp_path / "open.pem"
    assert main(["keygen", str(private)]) == 3
    assert "set MODEL_SIGNING_PASSWORD, type one in, or say --no-password" in capsys.readouterr().err
    assert not private.exists()
    assert main(["keygen", str(private), "--no-password"]) == 0
    before = private.read_bytes()
    assert b"ENCRYPTED" not in before
    assert main(["keygen", str(private), "--no-password"]) == 3
    assert "keys are never overwritten" in capsys.readouterr().err
    assert private.read_bytes() == before


def test_passwords_are_typed_in_on_a_terminal(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODEL_SIGNING_PASSWORD", raising=False)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    typed = iter(["one", "other", "one", "one", "one"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    private = tmp_path / "release.pem"
    assert main(["keygen", str(private)]) == 3
    assert "the two passwords differ" in capsys.readouterr().err
    assert main(["keygen", str(private)]) == 0
    assert main(["sign", str(model), "--private-key", str(private)]) == 0
    assert next(typed, None) is None


def test_a_plan_with_eager_attention(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    _, plan = _json(capsys, "plan", str(model), "--device", "cpu", "--attention", "eager")
    assert "scores of eager attention" in [line["what"] for line in plan["lines"]]
    with pytest.raises(SystemExit):
        main(["plan", str(model), "--attention", "flash"])
    assert "choose from" in capsys.readouterr().err


def test_quantize(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    output = tmp_path / "small"
    arguments = ["quantize", str(model), "--device", "cpu", "--scheme", "int8-weight", "--output", str(output)]
    code, data = _json(capsys, *arguments)
    assert (code, data["quantization"]["scheme"]) == (0, Scheme.INT8_WEIGHT)
    assert data["size_bytes"] == sum(file.stat().st_size for file in output.iterdir())
    assert main(["plan", str(output), "--device", "cpu"]) == 0
    assert main(arguments) == 3
    assert "is there already: name a folder that is new or empty" in capsys.readouterr().err


def test_a_scheme_that_cannot_run_here(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    output = tmp_path / "small"
    arguments = ["--device", "cpu", "--scheme", "fp8-weight", "--output", str(output)]
    assert main(["quantize", str(model), *arguments]) == 3
    assert "compute capability 8.9" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["bogus"], ["plan"], ["plan", "x", "--context", "0"], ["plan", "x", "--quantization", "int3"], ["sign", "x"]],
)
def test_bad_arguments_are_not_taken_for_a_bad_model(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 3
    assert "usage:" in capsys.readouterr().err


def test_bad_settings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSOLE_PORT", "no")
    assert main(["list"]) == 3
    assert "CONSOLE_PORT" in capsys.readouterr().err.upper()


def test_a_fault_of_the_tool(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("engine.weights.cache.read_entries", fail)
    assert main(["list"]) == 3
    assert "this is a fault of the tool" in caplog.text


def test_interrupted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.weights.cache.read_entries", interrupt)
    assert main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_progress_in_a_log_is_a_line_every_ten_percent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    for percent in range(101):
        progress("loading weights", percent / 100)
    progress("saving", None)
    progress("saving", None)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "loading weights 0%"
    assert lines[-2:] == ["loading weights 100%", "saving"]
    assert len(lines) == 12


def test_progress_on_a_terminal_rewrites_its_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = Progress()
    progress("loading weights", 0.5)
    progress("loading weights", 0.51)
    progress.close()
    assert capsys.readouterr().err == "\r\x1b[Kloading weights 50%\n"


def test_as_a_process_and_without_torch(home: Path) -> None:
    code = (
        "import sys; from engine.models.__main__ import main; code = main(['list']); "
        "sys.exit(7 if 'torch' in sys.modules else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "the weights cache is empty\n"), done.stderr
