"""An answer token by token, coloured by how sure the model was, as HTML. A pure function."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from engine.state import TokenLogprob

_STYLE = (
    "font-family:var(--st-code-font,monospace);font-size:0.85rem;line-height:2;white-space:pre-wrap;"
    "overflow-wrap:anywhere"
)


def tokens_as_html(tokens: Sequence[TokenLogprob]) -> str:
    """Spans whose background goes from green (certain) to red (a guess), with the alternatives as tooltip."""
    return f'<div style="{_STYLE}">{"".join(_span(token) for token in tokens)}</div>'


def _span(token: TokenLogprob) -> str:
    probability = math.exp(token.logprob)
    hue = round(120 * probability)
    lines = [f"{_shown(token.text)}  {probability:.1%}", "—"]
    lines += [f"{_shown(text)}  {math.exp(logprob):.1%}" for text, logprob in token.top]
    title = html.escape("\n".join(lines), quote=True)
    style = f"background:hsla({hue},75%,45%,0.28);border-radius:3px;padding:1px 0"
    text = html.escape(token.text).replace("\n", "↵\n")
    return f'<span title="{title}" style="{style}">{text}</span>'


def _shown(text: str) -> str:
    """White space made visible, as it tells tokens apart."""
    return text.replace("\n", "↵").replace(" ", "␣")
