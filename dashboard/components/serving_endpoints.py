"""How other programs reach the models here: addresses and code to copy."""

from __future__ import annotations

import streamlit as st

from dashboard.components.code_view import as_curl, as_python, request_body
from engine.config import Settings
from engine.gateway import Gateway
from engine.inference.request import SamplingParams
from engine.state import Said

_ENDPOINTS = (
    ("POST", "/v1/chat/completions", "answers a conversation, whole or streamed"),
    ("POST", "/v1/completions", "continues plain prompts"),
    ("POST", "/v1/responses", "answers, stores and goes on, in the background too"),
    ("POST", "/v1/embeddings", "vectors of texts"),
    ("POST", "/v1/batches", "rows of a file, answered when there is room; the file by `/v1/files`"),
    ("GET", "/v1/models", "the models that are ready"),
    ("POST", "/tokenize", "a text as a model's tokens; `/detokenize` back"),
    ("GET", "/admin/docs", "what loads, swaps and unloads models, and makes keys"),
    ("GET", "/healthz", "the process answers"),
    ("GET", "/readyz", "a model answers"),
    ("GET", "/metrics", "readings for Prometheus"),
)


def endpoint_lines() -> str:
    """The endpoints as a Markdown list."""
    return "\n".join(f"- `{method} {path}` {text}" for method, path, text in _ENDPOINTS)


def show_endpoints(gateway: Gateway, settings: Settings, *, needs_key: bool) -> None:
    """The addresses, and a call of the chosen model."""
    base_url = f"http://{settings.host}:{settings.port}"
    names = gateway.names()
    if not names:
        st.info("No model can answer now. The code will be for one that can.", icon=":material/info:")
    else:
        model = st.selectbox("Model", names, key="endpoint-model", help="A name may end in `:quality` or `:fast`.")
        body = request_body(model, [Said("user", "What is the capital of France?")], SamplingParams(max_tokens=64))
        curl, python = st.tabs(["curl", "Python"])
        curl.code(as_curl(base_url, body, needs_key=needs_key), language="bash", wrap_lines=True)
        python.code(as_python(base_url, body, needs_key=needs_key), language="python", wrap_lines=True)
    st.markdown(f"At `{base_url}`:\n\n{endpoint_lines()}")
