"""A conversation as a file to keep or to hand on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from engine.inference.images import write_data_url
from engine.state.conversation import Answer, Conversation, KeptImage, Turn, TurnKind
from engine.state.payload import to_payload

ReadImage = Callable[[KeptImage], bytes | None]


def to_json(conversation: Conversation, read_image: ReadImage) -> str:
    """Everything that is kept of the conversation, every answer, token and picture included: the pictures under
    `images`, by their SHA-256, as data: URLs. `from_payload` reads it back, without them."""
    kept = {image.sha256: image for turn in conversation.turns for image in turn.images}
    if not kept:
        return to_payload(conversation, indent=2)
    files = {image: read_image(image) for image in kept.values()}
    urls = {image.sha256: write_data_url(image.media_type, data) for image, data in files.items() if data is not None}
    return json.dumps(json.loads(to_payload(conversation)) | {"images": urls}, indent=2, ensure_ascii=False)


def to_markdown(conversation: Conversation) -> str:
    """The conversation to read: of a chat turn the selected answer, of a comparison all of them, each with
    what it took. Texts stand as they are, because models answer in Markdown."""
    blocks = [f"# {' '.join(conversation.title.split()) or 'Conversation'}"]
    if conversation.system_prompt:
        blocks.append(f"**System prompt**\n\n{_quoted(conversation.system_prompt)}")
    for turn in conversation.turns:
        blocks.extend(_turn_blocks(turn))
    return "\n\n".join(blocks) + "\n"


def _turn_blocks(turn: Turn) -> Iterator[str]:
    yield "## User"
    for image in turn.images:
        yield _quoted(f"{image.name} ({image.media_type}, SHA-256 {image.sha256[:12]})")
    if turn.user_text:
        yield turn.user_text
    for index, answer in enumerate(turn.answers):
        is_selected = index == turn.selected
        if not is_selected and turn.kind is TurnKind.CHAT:
            continue
        mark = " (selected)" if is_selected and turn.kind is TurnKind.COMPARE else ""
        yield f"## {answer.instance_id}{mark}"
        if answer.text:
            yield answer.text
        if answer.error:
            yield _quoted(f"**Error:** {answer.error}")
        yield f"*{_cost_line(answer)}*"


def _cost_line(answer: Answer) -> str:
    """Tokens and latencies in one line; what was not measured is left out."""
    parts = [f"{answer.num_prompt_tokens} tokens in, {answer.num_output_tokens} out"]
    for name, value_s in (("queue", answer.queue_s), ("TTFT", answer.ttft_s), ("TPOT", answer.tpot_s)):
        if value_s is not None:
            parts.append(f"{name} {value_s * 1000:.1f} ms")
    if answer.tokens_per_s is not None:
        parts.append(f"{answer.tokens_per_s:.1f} tok/s")
    if answer.seed is not None:
        parts.append(f"seed {answer.seed}")
    if answer.finish_reason is not None:
        parts.append(f"finish reason {answer.finish_reason}")
    return " · ".join(parts)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())
