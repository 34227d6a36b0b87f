from __future__ import annotations

import pytest

from engine.inference.calls.formats import HERMES, LLAMA, MISTRAL, CallFormat, choose_format
from tests.fakes import CHAT_TEMPLATE

_QWEN = "{%- if tools %}<tools>{{ tools | tojson }}</tools> within <tool_call></tool_call> XML tags{%- endif %}"
_QWEN_CODER = _QWEN + "<tool_call>\n<function=example>"
_GLM = _QWEN + "<tool_call>{function-name}\n<arg_key>"
_MISTRAL = '{%- if tools is not none %}[AVAILABLE_TOOLS]{% endif %}{{- "[TOOL_CALLS] [" }}'
_MISTRAL_13 = _MISTRAL + '{{- "[ARGS]" }}'
_LLAMA = "{%- if tools %}Environment: ipython{%- endif %}{{- '\"parameters\": ' }}"


@pytest.mark.parametrize(
    ("template", "call_format", "is_known"),
    [
        (_QWEN, HERMES, True),
        (_MISTRAL, MISTRAL, True),
        (_LLAMA, LLAMA, True),
        (_QWEN_CODER, HERMES, False),
        (_GLM, HERMES, False),
        (_MISTRAL_13, HERMES, False),
        (CHAT_TEMPLATE, HERMES, False),
        ("You have tools. <tool_call>", HERMES, False),
        ("{% if tools %}{{ tools }}{% endif %}", HERMES, False),
    ],
)
def test_the_template_tells_the_format(template: str, call_format: CallFormat, is_known: bool) -> None:
    assert choose_format(template) == (call_format, is_known)
