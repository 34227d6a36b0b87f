"""The end of what was deleted: conversations that nobody took back go for good, and pictures that nothing shows."""

from __future__ import annotations

from dataclasses import dataclass

from engine.state.conversations import ConversationStore
from engine.state.images import ImageStore

# A picture is kept before the turn that shows it: it may be about to become part of one for as long as this.
ATTACHING_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Purged:
    """How many conversations went, and how many pictures."""

    num_conversations: int
    num_images: int


def purge_deleted(
    conversations: ConversationStore, images: ImageStore, keep_s: float, now_s: float, *, look_for_images: bool = False
) -> Purged:
    """Remove what was deleted more than `keep_s` before `now_s`. Pictures are looked for where conversations went, or
    where that is asked for, as all conversations are read for it.

    Raises:
        StoreError: the database cannot do it.
    """
    num_conversations = conversations.purge(now_s - keep_s)
    if not (num_conversations or look_for_images) or not images.has_older(now_s - ATTACHING_S):
        return Purged(num_conversations, 0)
    shown = conversations.digests()
    return Purged(num_conversations, images.remove_all_but(shown, now_s - ATTACHING_S))
