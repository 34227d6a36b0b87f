"""Making a key pair on the page, over real files."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from engine.weights.keys import load_private_key, load_public_key


def script() -> None:
    from dashboard.components.signing_key_form import show_signing_key_form

    show_signing_key_form()


def make(file: str, password: str, again: str) -> AppTest:
    page = AppTest.from_function(script, default_timeout=20).run()
    page.text_input(key="keygen-file").set_value(file)
    page.text_input(key="keygen-password").set_value(password)
    page.text_input(key="keygen-again").set_value(again)
    page.button(key="keygen-submit").click().run()
    assert not page.exception
    return page


def test_a_pair_is_made_and_the_password_forgotten(tmp_path: Path) -> None:
    private = tmp_path / "release.pem"
    page = make(f" {private} ", "s3cret", "s3cret")
    assert "release.pem" in page.success[0].value
    assert "CONSOLE_SIGNATURE_KEYS" in page.caption[0].value
    assert private.stat().st_mode & 0o777 == 0o600
    made = load_private_key(private, "s3cret").public_key()
    assert made == load_public_key(tmp_path / "release.pub")
    assert page.text_input(key="keygen-password").value == page.text_input(key="keygen-again").value == ""


@pytest.mark.parametrize(
    ("file", "password", "again", "words"),
    [
        ("", "a", "a", "Private key is empty"),
        ("new.pem", "", "", "Password is empty"),
        ("new.pem", "a", "b", "The two passwords differ"),
        ("there.pem", "a", "a", "keys are never overwritten"),
        ("nowhere/new.pem", "a", "a", "choose another folder"),
    ],
)
def test_what_is_refused(tmp_path: Path, file: str, password: str, again: str, words: str) -> None:
    (tmp_path / "there.pem").write_text("mine")
    page = make(str(tmp_path / file) if file else "", password, again)
    assert words in page.error[0].value
    assert not page.success
    assert [path.name for path in tmp_path.iterdir()] == ["there.pem"]
    assert (tmp_path / "there.pem").read_text() == "mine"
