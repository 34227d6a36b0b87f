from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from engine.inference.images import ImagePart
from engine.state.conversation import add_turn, new_conversation
from engine.state.conversations import ConversationStore
from engine.state.database import open_database
from engine.state.images import ImageStore
from engine.state.purge import ATTACHING_S, Purged, purge_deleted
from tests.vision_models import picture_bytes

DAY_S = 86_400.0
IMAGES = [ImagePart(picture_bytes(seed)) for seed in range(4)]


@dataclass(frozen=True)
class Talk:
    """A conversation: the pictures in it, and how many days ago it was deleted."""

    images: frozenset[int]
    deleted_days: int | None


talks = st.builds(Talk, st.frozensets(st.integers(0, 3)), st.none() | st.integers(0, 60))


@given(kept=st.lists(talks, max_size=5), attached_days=st.lists(st.integers(0, 60), min_size=4, max_size=4))
def test_a_picture_goes_exactly_when_nothing_shows_it_and_it_is_old(kept: list[Talk], attached_days: list[int]) -> None:
    now_s = 100 * DAY_S + 1.0
    with open_database("sqlite://") as database:
        times: list[float] = []
        conversations, images = ConversationStore(database, lambda: times[-1]), ImageStore(database, lambda: times[-1])
        parts = []
        for part, days in zip(IMAGES, attached_days, strict=True):
            times.append(now_s - days * DAY_S)
            parts.append(images.keep(part, "x.png"))
        ids = []
        for talk in kept:
            whole = add_turn(
                new_conversation(now_s=0.0), "?", now_s=1.0, images=tuple(parts[index] for index in talk.images)
            )
            conversations.save(whole)
            ids.append(whole.id)
            if talk.deleted_days is not None:
                times.append(now_s - talk.deleted_days * DAY_S)
                conversations.delete(whole.id)
        found = purge_deleted(conversations, images, 30 * DAY_S, now_s, look_for_images=True)
        is_left = [talk.deleted_days is None or talk.deleted_days <= 30 for talk in kept]
        shown = {index for talk, is_one in zip(kept, is_left, strict=True) if is_one for index in talk.images}
        gone = {index for index in range(4) if index not in shown and attached_days[index] * DAY_S > ATTACHING_S}
        assert found == Purged(is_left.count(False), len(gone))
        assert {index for index in range(4) if images.read(parts[index]) is None} == gone
        there = [conversations.restore(one) or conversations.get(one) is not None for one in ids]
        assert there == is_left


def test_pictures_are_not_looked_for_where_nothing_went() -> None:
    with open_database("sqlite://") as database:
        conversations, images = ConversationStore(database), ImageStore(database, lambda: 0.0)
        kept = images.keep(IMAGES[0], "x.png")
        assert purge_deleted(conversations, images, DAY_S, 9 * DAY_S) == Purged(0, 0)
        assert images.read(kept) is not None
