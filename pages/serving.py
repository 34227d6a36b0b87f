"""Who answers requests: instances local and remote, the routes over them, kept answers, batches, and why each request
went where it did."""

from __future__ import annotations

import streamlit as st

from dashboard.components.serving_batches import show_batches
from dashboard.components.serving_cache import show_cache, show_cache_asked
from dashboard.components.serving_decision import show_decisions
from dashboard.components.serving_endpoints import show_endpoints
from dashboard.components.serving_instances import show_asked, show_instances
from dashboard.components.serving_remote_form import show_remote_form
from dashboard.components.serving_routes import show_route_asked, show_routes
from dashboard.components.serving_try import show_try
from dashboard.components.times import browser_zone
from dashboard.resources import console
from engine.state.api_keys import Scope

this = console()
gateway, zone = this.gateway, browser_zone()


@st.fragment(run_every=1)
def show_live_instances() -> None:
    show_instances(gateway, this.engine.serving(), this.clock.wall())


@st.fragment(run_every=1)
def show_live_decisions() -> None:
    show_decisions(gateway.decisions(), zone)


@st.fragment(run_every=5)
def show_live_cache() -> None:
    show_cache(gateway.cache)


st.title("Serving", anchor=False)
state, forms = st.columns([3, 2], gap="large")
with state:
    st.subheader("Instances", anchor=False)
    show_live_instances()
    st.subheader("Routes", anchor=False)
    show_routes(gateway)
    st.subheader("Response cache", anchor=False)
    show_live_cache()
    st.subheader("Batches", anchor=False)
    show_batches(this.batches, this.clock)
    st.subheader("Last decisions", anchor=False)
    show_live_decisions()
with forms:
    st.subheader("Try a request without sending it", anchor=False)
    show_try(gateway)
    st.subheader("Add a remote instance", anchor=False)
    show_remote_form(gateway)
st.subheader("Endpoints", anchor=False)
show_endpoints(gateway, this.settings, needs_key=this.keys.is_guarded(Scope.INFERENCE))
show_asked(gateway)
show_route_asked(gateway)
show_cache_asked(gateway.cache)
