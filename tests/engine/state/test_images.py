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
