"""From a source to a model that answers, through the engine: a hub on loopback, policies, code of a model's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.config import Settings
from engine.engine import Engine
from engine.inference.request import Finished, Message, Request, SamplingParams
from engine.instance import InstanceInfo, InstanceState
from engine.models.spec import ModelSpec
from engine.weights.keys import generate_key_pair
from engine.weights.signature import sign_folder
from tests.engine.weights.hub_server import HubServer, serve_hub
from tests.fakes import wait_until


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with serve_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield server


def load(engine: Engine, source: str) -> InstanceInfo:
    """Load and wait for the end of it."""
    name = engine.load(ModelSpec(source, name="m", device="cpu", dtype="float32"))
    wait_until(lambda: engine.instances()[0].state in (InstanceState.READY, InstanceState.FAILED), 60)
    return next(info for info in engine.instances() if info.name == name)


def open_engine(home: Path, **settings: object) -> Engine:
    return Engine(Settings(home=home, model="none", kv_cache_gib=0.1, **settings), lambda _record: None)  # type: ignore[arg-type]


def test_a_hub_id_is_fetched_and_answers(hub: HubServer, tiny_folder: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_folder.iterdir() if path.is_file()}
    commit = hub.publish("acme/tiny", files)
    engine = open_engine(tmp_path)
    info = load(engine, "acme/tiny")
    assert info.state is InstanceState.READY, info.reason
    assert info.model is not None
    assert info.model.revision == commit[:12]
    stream = engine.stream(Request("m", (Message("user", "Hi"),), SamplingParams(max_tokens=2)))
    assert any(isinstance(event, Finished) for event in stream)
    engine.close()
    assert not hub.requests("pytorch_model.bin")


def test_a_hub_that_is_not_there_is_one_sentence(hub: HubServer, tmp_path: Path) -> None:
    engine = open_engine(tmp_path)
    info = load(engine, "acme/none")
    assert info.state is InstanceState.FAILED
    assert "acme/none" in (info.reason or "")
    engine.close()


@pytest.mark.parametrize("is_tampered", [False, True])
def test_under_enforce_only_what_is_signed_and_whole_loads(
    tiny_folder: Path, tmp_path: Path, is_tampered: bool
) -> None:
    folder = tmp_path / "signed"
    shutil.copytree(tiny_folder, folder)
    keys = generate_key_pair(tmp_path / "key.pem")
    sign_folder(folder, keys.private_key)
    if is_tampered:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"note": "changed"}))
    engine = open_engine(tmp_path / "home", signatures_folder="enforce", signature_keys=(keys.public_key,))
    info = load(engine, str(folder))
    engine.close()
    if is_tampered:
        assert info.state is InstanceState.FAILED
        assert "config.json" in (info.reason or "")
    else:
        assert info.state is InstanceState.READY, info.reason


def test_an_unsigned_folder_is_refused_under_enforce_and_told_under_warn(tiny_folder: Path, tmp_path: Path) -> None:
    for mode, state in (("enforce", InstanceState.FAILED), ("warn", InstanceState.READY)):
        engine = open_engine(tmp_path / mode, signatures_folder=mode)
        info = load(engine, str(tiny_folder))
        engine.close()
        assert info.state is state, info.reason
        told = info.reason or " ".join(info.model.notes if info.model else ())
        assert "sign" in told


def test_code_of_the_models_own_runs_only_where_the_setting_allows_it(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "coded.CodedConfig", "AutoModelForCausalLM": "coded.CodedModel"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "coded", "auto_map": names}))
    (folder / "coded.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n\n\n"
        "class CodedConfig(LlamaConfig):\n    model_type = 'coded'\n\n\n"
        "class CodedModel(LlamaForCausalLM):\n    config_class = CodedConfig\n"
    )
    refused = open_engine(tmp_path / "a")
    info = load(refused, str(folder))
    refused.close()
    assert info.state is InstanceState.FAILED
    assert "CONSOLE_ALLOW_REMOTE_CODE=true" in (info.reason or "")
    allowed = open_engine(tmp_path / "b", allow_remote_code=True)
    info = load(allowed, str(folder))
    allowed.close()
    assert info.state is InstanceState.READY, info.reason
    assert any("runs Python code of its own" in note for note in (info.model.notes if info.model else ()))
