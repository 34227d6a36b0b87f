"""What the console remembers besides measurements: conversations, in SQLite or PostgreSQL."""

from __future__ import annotations

from engine.state.conversation import (
    Answer,
    Conversation,
    KeptImage,
    Said,
    TokenLogprob,
    Turn,
    TurnKind,
    add_answer,
    add_turn,
    fork_at,
    messages,
    new_conversation,
    select_answer,
    title_from,
)
from engine.state.conversations import ConversationStore, ConversationSummary
from engine.state.database import FILE_NAME, Database, open_database, sqlite_url
from engine.state.export import to_json, to_markdown
from engine.state.images import ImageStore
from engine.state.payload import from_payload

__all__ = [
    "FILE_NAME",
    "Answer",
    "Conversation",
    "ConversationStore",
    "ConversationSummary",
    "Database",
    "ImageStore",
    "KeptImage",
    "Said",
    "TokenLogprob",
    "Turn",
    "TurnKind",
    "add_answer",
    "add_turn",
    "fork_at",
    "from_payload",
    "messages",
    "new_conversation",
    "open_database",
    "select_answer",
    "sqlite_url",
    "title_from",
    "to_json",
    "to_markdown",
]
