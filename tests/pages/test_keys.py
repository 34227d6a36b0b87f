"""API keys on the settings page, and the sign-in that follows from them."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from engine import Console
from engine.scheduling.quota import Quota
from engine.state.api_keys import Scope
from tests.pages.conftest import OpenPage, texts


def _create(page: AppTest, name: str, *scopes: Scope) -> str:
    """Make a session's first key with the form, and give the secret that is shown."""
    page.text_input(key="key-0-name").set_value(name)
    page.button_group(key="key-0-scopes").set_value(list(scopes))
    next(button for button in page.button if button.label == "Create key").click().run()
    assert not page.exception
    return page.code[0].value if page.code else ""


def _sign_in(page: AppTest, secret: str) -> AppTest:
    page.text_input[0].set_value(secret)
    next(button for button in page.button if button.label == "Sign in").click().run()
    assert not page.exception
    return page


def test_a_key_is_shown_once_and_counts(console: Console, open_page: OpenPage) -> None:
    page = open_page("settings")
    assert "There is no key: whoever is on this machine may use everything" in texts(page)
    secret = _create(page, "phone farm", Scope.INFERENCE)
    assert console.keys.identify(secret).name == "phone farm"
    page.button(key="dismiss-key").click().run()
    assert not page.code
    assert secret not in str(page.main)
    assert "The API needs a key. These pages" in texts(page)
    (table,) = page.dataframe
    assert table.value["Name"].tolist() == ["phone farm"]


def test_the_first_admin_key_leaves_its_maker_in_and_others_out(console: Console, open_page: OpenPage) -> None:
    page = open_page("settings")
    secret = _create(page, "root", Scope.ADMIN)
    assert secret.startswith("agc_")
    assert "The API, these pages and the admin API need a key." in texts(page)
    other = open_page("settings")
    assert [field.label for field in other.text_input] == ["API key"]
    assert "API keys" not in [heading.value for heading in _sign_in(other, "agc_stranger").subheader]
    assert "not known here" in other.error[0].value
    assert "API keys" in [heading.value for heading in _sign_in(other, f" {secret} ").run().subheader]


def test_only_the_scope_admin_signs_in(console: Console, open_page: OpenPage) -> None:
    console.keys.create("root", {Scope.ADMIN})
    secret = console.keys.create("farm", {Scope.INFERENCE, Scope.METRICS}).secret
    page = _sign_in(open_page("settings"), secret)
    assert "has not the scope admin" in page.error[0].value
    assert [field.label for field in page.run().text_input] == ["API key"]


def test_revoking_ends_sessions_too(console: Console, open_page: OpenPage) -> None:
    console.keys.create("root", {Scope.ADMIN})
    made = console.keys.create("second", {Scope.ADMIN})
    page = _sign_in(open_page("settings"), made.secret).run()
    assert page.subheader
    console.keys.revoke(made.key.id)
    page.run()
    assert [field.label for field in page.text_input] == ["API key"]


def test_revoking_asks_first(console: Console, open_page: OpenPage) -> None:
    made = console.keys.create("farm", {Scope.INFERENCE})
    page = open_page("settings")
    page.selectbox(key="chosen-key").set_value(made.key.id).run()
    page.button(key="ask-revoke").click().run()
    assert "nothing brings it back" in texts(page)
    page.button(key="revoke-refused").click().run()
    assert console.keys.may(made.key.id, Scope.INFERENCE)
    page.button(key="ask-revoke").click().run()
    page.button(key="revoke-confirmed").click().run()
    assert not page.exception
    assert not console.keys.may(made.key.id, Scope.INFERENCE)
    assert page.dataframe[0].value["State"].tolist() == ["revoked"]


def test_quotas_are_changed(console: Console, open_page: OpenPage) -> None:
    made = console.keys.create("farm", {Scope.INFERENCE}, Quota(requests_per_minute=60))
    page = open_page("settings")
    page.selectbox(key="chosen-key").set_value(made.key.id).run()
    page.button(key="ask-quotas").click().run()
    page.number_input(key=f"quota-{made.key.id}-tokens").set_value(5_000)
    page.button(key="quota-saved").click().run()
    assert not page.exception
    assert console.keys.identify(made.secret).quota == Quota(60, 5_000, None)


@pytest.mark.parametrize(("name", "scopes", "reason"), [("", [Scope.ADMIN], "the name has"), ("x", [], "no scope")])
def test_what_is_refused_stays_in_the_form(
    console: Console, open_page: OpenPage, name: str, scopes: list[Scope], reason: str
) -> None:
    page = open_page("settings")
    _create(page, name, *scopes)
    assert reason in page.error[0].value
    assert page.text_input(key="key-0-name").value == name
    assert console.keys.list() == ()
