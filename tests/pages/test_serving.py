"""The serving page, on a console of fakes and a server of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import Console, InstanceState, Message, Request, SamplingParams
from engine.gateway import CacheRules, Gateway
from engine.remote import RemoteSpec
from engine.scheduling.router import Route, Target
from tests.engine.remote.openai_server import OpenAiServer, openai_server, refuse
from tests.fakes import FakeBackend, wait_until
from tests.pages.conftest import OpenPage, load, texts


@pytest.fixture
def server(console: Console) -> Iterator[OpenAiServer]:
    with openai_server() as one:
        yield one
        console.gateway.close()


def add(console: Console, server: OpenAiServer, name: str = "far", **fields: object) -> None:
    console.gateway.remotes.add(RemoteSpec(**{"name": name, "base_url": server.url, "model": "there", **fields}))
    wait_until(lambda: console.gateway.remotes.find(name).info().state is InstanceState.READY)


def ask(console: Console, model: str) -> str:
    stream = console.gateway.stream(Request(model, (Message("user", "Hello"),)))
    list(stream)
    return stream.instance


def test_without_any_instance_it_says_what_to_do(open_page: OpenPage) -> None:
    page = open_page("serving")
    said = "\n".join(info.value for info in page.info)
    assert "load a model, or add a remote one" in said
    assert "There is no route" in said
    assert "No model can answer now" in said
    assert "Nothing was routed yet" in texts(page)


def test_it_names_every_endpoint_that_writes_or_embeds(open_page: OpenPage) -> None:
    shown = texts(open_page("serving"))
    for path in ("chat/completions", "completions", "responses", "embeddings"):
        assert f"`POST /v1/{path}`" in shown
    assert "`POST /tokenize`" in shown
    assert "`GET /admin/docs`" in shown


def test_instances_show_state_load_and_breaker(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    load(console, "phone")
    add(console, server, context_length=4096)
    server.answer = refuse(500, {"error": {"message": "out of memory"}})
    for _ in range(3):
        ask(console, "far")
    ask(console, "phone")
    page = open_page("serving")
    assert "local" in texts(page)
    assert "4,096 tokens of context" in texts(page)
    assert "breaker open" in texts(page) or "breaker half-open" in texts(page)
    failed = [metric.value for metric in page.metric if metric.label == "Failed"]
    assert failed == ["0 / 1", "3 / 3"]


def test_a_failed_remote_shows_why_and_is_checked_on_demand(
    console: Console, open_page: OpenPage, server: OpenAiServer
) -> None:
    add(console, server, check_every_s=3600.0)
    server.models = {"data": [{"id": "another"}]}
    page = open_page("serving")
    assert not page.error
    page.button(key="check-far").click().run()
    assert console.gateway.remotes.find("far").info().state is InstanceState.FAILED
    assert "far offers no model 'there'" in page.run().error[0].value


def test_a_remote_is_tested_and_added(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    page = open_page("serving")
    page.text_input(key="remote-name").set_value("far")
    page.text_input(key="remote-url").set_value(server.url)
    page.text_input(key="remote-model").set_value("wrong")
    page.button(key="remote-test").click().run()
    assert "and has: there" in page.warning[0].value
    page.text_input(key="remote-model").set_value("there")
    page.button(key="remote-test").click().run()
    assert "It answered in" in page.success[0].value
    assert not console.gateway.remotes.infos()
    page.button(key="remote-add").click().run()
    assert "**far** is added" in page.success[0].value
    wait_until(lambda: ask_when_ready(console))


def ask_when_ready(console: Console) -> bool:
    return console.gateway.remotes.find("far").info().state is InstanceState.READY and ask(console, "far") == "far"


def test_a_typed_key_is_stored_and_forgotten_by_the_session(
    console: Console, open_page: OpenPage, server: OpenAiServer
) -> None:
    page = open_page("serving")
    page.segmented_control(key="remote-key-kind").set_value("stored").run()
    page.text_input(key="remote-name").set_value("far")
    page.text_input(key="remote-url").set_value(server.url)
    page.text_input(key="remote-model").set_value("there")
    page.text_input(key="remote-secret").set_value("sk-very-secret")
    page.button(key="remote-add").click().run()
    assert page.text_input(key="remote-secret").value == ""
    assert page.session_state["remote-secret"] == ""
    wait_until(lambda: "Bearer sk-very-secret" in server.keys)


def test_a_url_that_makes_no_sense_is_one_message_and_stays_typed(console: Console, open_page: OpenPage) -> None:
    page = open_page("serving")
    page.text_input(key="remote-name").set_value("far")
    page.text_input(key="remote-url").set_value("10.0.0.7")
    page.text_input(key="remote-model").set_value("there")
    page.button(key="remote-add").click().run()
    assert [error.value for error in page.error if "base URL is malformed" in error.value]
    assert page.text_input(key="remote-url").value == "10.0.0.7"
    assert not console.gateway.remotes.infos()


def test_removal_asks_first_and_names_the_routes(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    add(console, server)
    console.gateway.routes.save(Route("chat", (Target("far"),)))
    page = open_page("serving")
    page.button(key="remove-far").click().run()
    assert "**far** is forgotten here" in texts(page)
    assert "Still named by: chat" in page.warning[0].value
    page.button(key="remove-refused").click().run()
    assert console.gateway.remotes.infos()
    page.button(key="remove-far").click().run()
    page.button(key="remove-confirmed").click().run()
    assert not console.gateway.remotes.infos()
    assert "not here now: far" in texts(page)


def test_a_route_is_made_with_weights_and_their_sum(
    console: Console, open_page: OpenPage, server: OpenAiServer
) -> None:
    load(console, "phone")
    add(console, server)
    page = open_page("serving")
    page.button(key="route-new").click().run()
    page.text_input(key="route--name").set_value("chat")
    page.multiselect(key="route--targets").set_value(["phone", "far"]).run()
    page.toggle(key="route--weighted").set_value(True).run()
    page.number_input(key="route--weight-phone").set_value(90.0)
    page.number_input(key="route--weight-far").set_value(30.0).run()
    assert "Sum 120: phone 75 %, far 25 %" in texts(page)
    page.button(key="route-confirmed").click().run()
    saved = console.gateway.routes.find("chat")
    assert saved == Route("chat", (Target("phone", 90.0), Target("far", 30.0)), is_weighted=True)
    assert "phone 75 %, far 25 %" in texts(page)


def test_a_route_is_changed_in_place(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    load(console, "phone")
    add(console, server)
    console.gateway.routes.save(Route("chat", (Target("far"),), is_sticky=True))
    page = open_page("serving")
    page.button(key="route-edit-chat").click().run()
    assert page.text_input(key="route-chat-name").disabled
    page.multiselect(key="route-chat-fallbacks").set_value(["phone"])
    page.toggle(key="route-chat-sticky").set_value(False)
    page.button(key="route-confirmed").click().run()
    assert console.gateway.routes.all() == (Route("chat", (Target("far"),), ("phone",), is_sticky=False),)
    assert "then, in this order: phone" in texts(page)


def test_a_route_that_makes_no_sense_is_one_message(console: Console, open_page: OpenPage) -> None:
    page = open_page("serving")
    page.button(key="route-new").click().run()
    page.text_input(key="route--name").set_value("chat:fast")
    page.button(key="route-confirmed").click().run()
    assert "have a meaning already" in page.error[0].value
    page.button(key="route-refused").click().run()
    assert console.gateway.routes.all() == ()


def test_deleting_a_route_asks_first(console: Console, open_page: OpenPage) -> None:
    console.gateway.routes.save(Route("chat", (Target("phone"),)))
    page = open_page("serving")
    page.button(key="route-delete-chat").click().run()
    assert "requests for that name are answered 404" in texts(page)
    page.button(key="route-delete-refused").click().run()
    assert console.gateway.routes.all()
    page.button(key="route-delete-chat").click().run()
    page.button(key="route-delete-confirmed").click().run()
    assert console.gateway.routes.all() == ()


def test_decisions_have_their_reasons(
    console: Console, backend: FakeBackend, open_page: OpenPage, server: OpenAiServer
) -> None:
    load(console, "phone")
    add(console, server)
    server.answer = refuse(500, {"error": {"message": "out of memory"}})
    console.gateway.routes.save(Route("chat", (Target("far"),), ("phone",)))
    assert ask(console, "chat") == "phone"
    page = open_page("serving")
    labels = [expander.label for expander in page.expander]
    assert any("chat → **phone** · fallback 1" in label for label in labels)
    assert any("chat → **far** · " in label for label in labels)
    assert "out of memory" in texts(page)


def test_trying_a_request_sends_nothing(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    load(console, "phone")
    add(console, server, context_length=200)
    page = open_page("serving")
    page.selectbox(key="try-model").set_value("auto")
    page.number_input(key="try-prompt").set_value(150)
    page.number_input(key="try-answer").set_value(60)
    page.segmented_control(key="try-precision").set_value("fast")
    page.button(key="try-submit").click().run()
    assert "**phone** answers" in page.success[0].value
    assert "210 tokens are needed, its context holds 200" in texts(page)
    assert (console.gateway.decisions(), server.seen) == ((), [])


def test_trying_what_nobody_can_do_says_why(console: Console, open_page: OpenPage, server: OpenAiServer) -> None:
    add(console, server)
    page = open_page("serving")
    page.multiselect(key="try-needs").set_value(["tools"])
    page.button(key="try-submit").click().run()
    assert "no instance of 'far' can answer now" in page.error[0].value
    assert "it has no tools" in texts(page)


def test_code_is_for_a_model_that_can_answer(console: Console, open_page: OpenPage) -> None:
    load(console, "phone")
    page = open_page("serving")
    assert page.selectbox(key="endpoint-model").options == ["phone"]
    curl, python = (code.value for code in page.code)
    assert '"model": "phone"' in curl
    assert "client.chat.completions.create(" in python
    assert "CONSOLE_API_KEY" not in curl


def test_a_response_cache_that_is_off_says_how_to_have_one(open_page: OpenPage) -> None:
    page = open_page("serving")
    assert any("CONSOLE_RESPONSE_CACHE_MIB" in caption.value for caption in page.caption)
    assert "clear-responses" not in {button.key for button in page.button}


def test_kept_answers_are_counted_and_cleared_when_that_is_confirmed(console: Console, open_page: OpenPage) -> None:
    gateway = Gateway(
        lambda: console.engine,
        console.gateway.remotes,
        console.gateway.routes,
        console.clock,
        kept=CacheRules(max_bytes=1_000_000),
    )
    console.gateway = gateway
    load(console, "phone")
    request = Request("phone", (Message("user", "Hello"),), SamplingParams(temperature=0.0), is_cacheable=True)
    for _ in range(2):
        list(gateway.stream(request))
    page = open_page("serving")
    shown = {metric.label: metric.value for metric in page.metric}
    assert (shown["Hits"], shown["Misses"], shown["Hit rate"], shown["Answers"]) == ("1", "1", "50 %", "1")
    page.button(key="clear-responses").click().run()
    page.button(key="clear-confirmed").click().run()
    assert gateway.cache.figures().num_entries == 0
    assert page.button(key="clear-responses").disabled
