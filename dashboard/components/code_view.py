"""The call that a turn of the playground made, as code for other programs. Pure functions of plain data."""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Sequence
from typing import Any

from engine import Message, SamplingParams
from engine.inference.openai_fields import EXTENSIONS, chat_logprob_fields, content_field, sampling_fields


def request_body(model: str, messages: Sequence[Message], sampling: SamplingParams) -> dict[str, Any]:
    """The JSON body of `POST /v1/chat/completions`, without what is at its default."""
    return {
        "model": model,
        "messages": [{"role": message.role, "content": content_field(message.content)} for message in messages],
        **sampling_fields(sampling),
        **chat_logprob_fields(sampling),
    }


def as_curl(base_url: str, body: dict[str, Any], *, needs_key: bool) -> str:
    """A command for a POSIX shell."""
    lines = [f"curl {shlex.quote(f'{base_url}/v1/chat/completions')}", "-H 'Content-Type: application/json'"]
    if needs_key:
        lines.append('-H "Authorization: Bearer $CONSOLE_API_KEY"')
    lines.append(f"-d {shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))}")
    return " \\\n  ".join(lines)


def as_python(base_url: str, body: dict[str, Any], *, needs_key: bool) -> str:
    """A program for the openai package."""
    key = 'os.environ["CONSOLE_API_KEY"]' if needs_key else '"none"'
    arguments = {name: value for name, value in body.items() if name not in EXTENSIONS}
    extra = {name: body[name] for name in EXTENSIONS if name in body}  # the client has no argument for these
    if extra:
        arguments["extra_body"] = extra
    lines = ["import os\n", ""] if needs_key else []
    lines += [
        "from openai import OpenAI",
        "",
        f'client = OpenAI(base_url="{base_url}/v1", api_key={key})',
        "answer = client.chat.completions.create(",
        *(_argument(name, value) for name, value in arguments.items()),
        ")",
        "print(answer.choices[0].message.content)",
    ]
    return "\n".join(line.rstrip("\n") for line in lines)


def _argument(name: str, value: Any) -> str:
    text = pprint.pformat(value, width=90, sort_dicts=False)
    return f"    {name}={text.replace(chr(10), chr(10) + '    ' + ' ' * (len(name) + 1))},"
