"""Private, test and public images are kept apart."""

from __future__ import annotations

import os

import numpy as np
import pytest

from data.overlap import pixel_digests, require_apart, require_private_unseen, warn_of_shared_test_images
from tests.rejects import ANY, rejects
from tracking.progress import console


def images(count: int, seed: int = 0, shape: tuple[int, int, int] = (4, 4, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


@pytest.mark.parametrize("other", ["a", "a/b", ".", "link", "hard.npz"])
def test_places_that_are_the_same_or_nested_are_refused(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    os.symlink("a", tmp_path / "link")
    (tmp_path / "soft.npz").touch()
    os.link(tmp_path / "soft.npz", tmp_path / "hard.npz")
    place = "soft.npz" if other == "hard.npz" else "a"
    with rejects("dataset.public_path", other, f"dataset.path={place}"):
        require_apart({"dataset.path": place, "dataset.test_path": None, "dataset.public_path": other})


def test_places_beside_each_other_are_not(tmp_path):
    for name in ("a", "ab"):
        (tmp_path / name).mkdir()
    require_apart({"dataset.path": str(tmp_path / "a"), "dataset.public_path": str(tmp_path / "ab"), "dataset.test_path": None})


def test_a_digest_is_of_pixels_and_shape_and_not_of_memory_or_order():
    some = images(50)
    assert len(np.unique(pixel_digests(some))) == 50
    assert (pixel_digests(some[::-1]) == pixel_digests(some)).all()
    assert (pixel_digests(np.asfortranarray(some)) == pixel_digests(some)).all()
    assert not np.isin(pixel_digests(some.reshape(50, 2, 8, 3)), pixel_digests(some)).any()


def test_private_images_among_public_ones_are_counted_once_each_in_whatever_part_they_are():
    private, other = images(20), images(30, seed=1)
    parts = [pixel_digests(part) for part in (other, private[:7], np.concatenate([private[5:9], other]))]
    with rejects("dataset.public_path", ANY, " 9 private images"):
        require_private_unseen(pixel_digests(private), {"dataset.public_path": parts})
    require_private_unseen(pixel_digests(private), {"dataset.public_path": [pixel_digests(other)]})


def test_test_images_among_private_ones_are_a_warning(monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(console, "print", lambda text, **_: told.append(text))
    private, test = images(20), images(30, seed=1)
    warn_of_shared_test_images(pixel_digests(private), pixel_digests(test))
    assert told == []
    warn_of_shared_test_images(pixel_digests(private), pixel_digests(np.concatenate([private[:3], test])))
    assert len(told) == 1
    assert told[0].startswith("warning: some test images")
    assert not any(figure in told[0] for figure in "0123456789")  # how many they are is private
