from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from engine.inference.images import ImagePart
from engine.state.conversation import KeptImage
from engine.state.database import Database
from engine.state.images import ImageStore
from tests.vision_models import picture_bytes


def test_what_was_kept_is_read(database: Database) -> None:
    image = ImagePart(picture_bytes())
    kept = ImageStore(database).keep(image, "screen.png")
    assert kept == KeptImage(image.sha256, "image/png", "screen.png")
    assert ImageStore(database).read(kept) == image.data


def test_the_same_picture_is_kept_once_whatever_it_is_called(database: Database) -> None:
    store, image = ImageStore(database), ImagePart(picture_bytes())
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda number: store.keep(image, f"{number}.png"), range(16)))
    assert len({one.name for one in kept}) == 16
    with database.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one() == 1


def test_one_that_is_not_here_is_none(database: Database) -> None:
    kept = ImageStore(database).keep(ImagePart(picture_bytes()), "screen.png")
    assert ImageStore(database).read(replace(kept, sha256="0" * 64)) is None


def _store_at(database: Database, now_s: float) -> ImageStore:
    return ImageStore(database, lambda: now_s)


def test_what_is_shown_or_was_just_attached_stays(database: Database) -> None:
    shown, stale, fresh = (ImagePart(picture_bytes(seed)) for seed in range(3))
    kept = [_store_at(database, at_s).keep(image, "x.png") for image, at_s in ((shown, 1), (stale, 2), (fresh, 90))]
    store = ImageStore(database)
    assert store.has_older(50.0)
    assert store.remove_all_but({shown.sha256}, 50.0) == 1
    assert [store.read(one) is not None for one in kept] == [True, False, True]
    assert store.remove_all_but(set(), 50.0) == 1
    assert not store.has_older(50.0)


def test_attaching_again_counts_anew(database: Database) -> None:
    image = ImagePart(picture_bytes())
    _store_at(database, 1.0).keep(image, "x.png")
    kept = _store_at(database, 90.0).keep(image, "x.png")
    store = ImageStore(database)
    assert store.remove_all_but(set(), 50.0) == 0
    assert store.read(kept) == image.data
    assert store.remove_all_but(set(), 91.0) == 1
    assert _store_at(database, 99.0).keep(image, "x.png") == kept
    assert store.read(kept) == image.data


def test_pictures_of_a_database_that_kept_no_times_are_old(database: Database) -> None:
    kept = ImageStore(database).keep(ImagePart(picture_bytes()), "x.png")
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE image_uses")
    assert ImageStore(database).remove_all_but({kept.sha256}, 50.0) == 0
    assert ImageStore(database).remove_all_but(set(), 50.0) == 1
