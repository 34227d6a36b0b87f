"""The call that a turn of the playground made, as code for other programs. Pure functions of plain data."""

from __future__ import annotations

import itertools
import json
import pprint
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from engine import SamplingParams
from engine.inference.openai_fields import EXTENSIONS, chat_logprob_fields, image_field, sampling_fields
from engine.state import KeptImage, Said

_MARK = "picture\u2038{}\u2038"  # stands for a picture's base64 until the code that reads its file takes its place
_MARKED = re.compile("(?<=;base64,)" + _MARK.format(r"(\d+)"))


def request_body(model: str, messages: Sequence[Said], sampling: SamplingParams) -> dict[str, Any]:
    """The JSON body of `POST /v1/chat/completions`, without what is at its default, and with marks in place of the
    pictures' bytes."""
    marks = (_MARK.format(number) for number in itertools.count())
    return {
        "model": model,
        "messages": [{"role": said.role, "content": _content(said, marks)} for said in messages],
        **sampling_fields(sampling),
        **chat_logprob_fields(sampling),
    }


def as_curl(base_url: str, body: dict[str, Any], images: Sequence[KeptImage] = (), *, needs_key: bool) -> str:
    """A command for a POSIX shell; the files of `images`, in the order of the body, are read where it is run."""
    lines = [f"curl {shlex.quote(f'{base_url}/v1/chat/completions')}", "-H 'Content-Type: application/json'"]
    if needs_key:
        lines.append('-H "Authorization: Bearer $CONSOLE_API_KEY"')
    text = json.dumps(body, indent=2, ensure_ascii=False)
    if not images:
        return " \\\n  ".join([*lines, f"-d {shlex.quote(text)}"])
    # A here-document: an argument may not be as long as a picture.
    text = re.sub(r"[\\$`]", r"\\\g<0>", text)
    text = _MARKED.sub(lambda mark: f"$(base64 < {shlex.quote(images[int(mark[1])].name)} | tr -d '\\n')", text)
    return " \\\n  ".join([*lines, "-d @- <<BODY"]) + f"\n{text}\nBODY"


def as_python(base_url: str, body: dict[str, Any], images: Sequence[KeptImage] = (), *, needs_key: bool) -> str:
    """A program for the openai package; it reads the files of `images`, in the order of the body."""
    key = 'os.environ["CONSOLE_API_KEY"]' if needs_key else '"none"'
    arguments = {name: value for name, value in body.items() if name not in EXTENSIONS}
    extra = {name: body[name] for name in EXTENSIONS if name in body}  # the client has no argument for these
    if extra:
        arguments["extra_body"] = extra
    standard = ["import base64", "import os", "from pathlib import Path"] if images else ["import os"]
    if not needs_key:
        standard.remove("import os")
    lines = [*standard, ""] if standard else []
    lines += ["from openai import OpenAI", ""]
    if images:
        lines += ["", "def encode(file):", "    return base64.b64encode(Path(file).read_bytes()).decode()", "", ""]
    lines += [
        f'client = OpenAI(base_url="{base_url}/v1", api_key={key})',
        "answer = client.chat.completions.create(",
        *(_reading(_argument(name, value), images) for name, value in arguments.items()),
        ")",
        "print(answer.choices[0].message.content)",
    ]
    return "\n".join(line.rstrip("\n") for line in lines)


def _argument(name: str, value: Any) -> str:
    text = pprint.pformat(value, width=90, sort_dicts=False)
    return f"    {name}={text.replace(chr(10), chr(10) + '    ' + ' ' * (len(name) + 1))},"


def _content(said: Said, marks: Iterator[str]) -> str | list[dict[str, Any]]:
    if not said.images:
        return said.text
    parts = [image_field(f"data:{image.media_type};base64,{next(marks)}") for image in said.images]
    return [*parts, {"type": "text", "text": said.text}] if said.text else parts


def _reading(argument: str, images: Sequence[KeptImage]) -> str:
    """The argument with what reads a file in place of its mark, which stands at the end of a string."""
    return re.sub(f"{_MARKED.pattern}'", lambda mark: f"' + encode({images[int(mark[1])].name!r})", argument)
