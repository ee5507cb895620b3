"""Statistics of real images between runs: kept once, never trusted where they are not what they should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eval.cache import content_key, kept_gaussian
from eval.frechet import Gaussian, fit_gaussian
from tests.command import typed
from tests.rejects import rejects

RNG = np.random.default_rng(0)
FITTED = fit_gaussian(RNG.normal(size=(20, 3)))
KEY = "0" * 64


def never() -> Gaussian:
    raise AssertionError("was kept already")


def same(a: Gaussian, b: Gaussian) -> bool:
    return a.count == b.count and np.array_equal(a.mean, b.mean) and np.array_equal(a.covariance, b.covariance)


def test_what_was_fitted_once_is_read_back_bitwise(tmp_path):
    folder = tmp_path / "internal" / "new"
    assert kept_gaussian(folder, KEY, lambda: FITTED) is FITTED
    assert same(kept_gaussian(folder, KEY, never), FITTED)
    assert [path.name for path in folder.iterdir()] == [f"{KEY}.npz"]


def test_another_key_is_fitted_for_itself(tmp_path):
    kept_gaussian(tmp_path, KEY, lambda: FITTED)
    other = Gaussian(2, np.zeros(3), np.eye(3))
    assert same(kept_gaussian(tmp_path, "1" * 64, lambda: other), other)
    assert same(kept_gaussian(tmp_path, KEY, never), FITTED)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(FITTED.covariance.tobytes())] ^= 1
    path.write_bytes(bytes(content))


def renamed(path: Path) -> None:
    kept_gaussian(path.parent, "2" * 64, lambda: Gaussian(9, np.ones(3), np.eye(3)))
    (path.parent / f"{'2' * 64}.npz").replace(path)


def misshapen(path: Path) -> None:
    np.savez(path, key=np.array(KEY), count=9, mean=np.ones(3), covariance=np.eye(2))


def foreign(path: Path) -> None:
    np.savez(path, mu=np.ones(3), sigma=np.eye(3))


def pickled(path: Path) -> None:
    np.savez(path, key=np.array(KEY), count=9, mean=np.ones(3), covariance=np.array([[None] * 3] * 3, object))


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


@pytest.mark.parametrize("spoil", [torn, flipped, renamed, misshapen, foreign, pickled, array, lambda path: path.write_text("")])
def test_a_file_that_is_not_what_was_kept_is_fitted_again_and_replaced(tmp_path, spoil: Callable[[Path], None]):
    kept_gaussian(tmp_path, KEY, lambda: FITTED)
    spoil(tmp_path / f"{KEY}.npz")
    fresh = Gaussian(5, np.full(3, 7.0), np.eye(3))
    assert same(kept_gaussian(tmp_path, KEY, lambda: fresh), fresh)
    assert same(kept_gaussian(tmp_path, KEY, never), fresh)


def test_a_folder_that_cannot_be_written_costs_the_keeping_alone(tmp_path, capsys):
    (tmp_path / "internal").write_text("a file")
    assert kept_gaussian(tmp_path / "internal", KEY, lambda: FITTED) is FITTED
    assert "eval.cache=" in capsys.readouterr().err


def test_the_key_is_of_images_embedding_and_weights():
    images = RNG.integers(0, 256, (4, 2, 2, 1)).astype(np.uint8)
    other = images.copy()
    other[3, 1, 1, 0] ^= 1
    same_pixels = images.reshape(4, 4, 1, 1)
    keys = {content_key(some, "clip", "a") for some in (images, other, same_pixels, images[:3])}
    assert len(keys | {content_key(images, "pixels", "a"), content_key(images, "clip", "b")}) == 6
    assert content_key(images.copy(), "clip", "a") == content_key(images, "clip", "a")


@pytest.mark.parametrize("folder", ["runs/statistics", "runs/internal/../statistics", "runs/x/release/internal"])
def test_a_folder_that_might_be_shared_is_refused(folder):
    with rejects("eval.cache", folder):
        typed(f"eval.cache={folder}")


def test_nothing_is_kept_where_that_is_asked_for(here):
    assert typed("eval.cache=null").eval.cache_folder is None
    assert kept_gaussian(None, KEY, lambda: FITTED) is FITTED
    assert not list(here.iterdir())
