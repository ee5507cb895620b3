"""The strip of real images and releases."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.dataset import ClassCounts
from data.datasets.digits import Digits
from data.samples import SampleSet
from scripts import strip
from tests.rejects import ANY, rejects


@pytest.fixture
def release(here):
    (here / "mine").mkdir()
    images = np.repeat(np.arange(40, dtype=np.uint8), 64).reshape(40, 8, 8, 1)
    SampleSet(images, np.arange(40) % 10, 10).save(here / "mine" / "samples.npz")
    return here / "mine"


def test_each_row_has_the_first_images_of_every_class(release):
    strip.main([f"releases=[{release},{release}]", "names=[mine,again]", "each=2", "out=strip.png"])
    picture = np.asarray(Image.open("strip.png"))
    enlarged = picture[-(8 * 4 + 4) : -4, -20 * 9 * 4 :][2::36, 2::36]  # of the last row, one pixel of each image
    assert enlarged.ravel().tolist() == [value for label in range(10) for value in (label, label + 10)]
    assert len(picture) == 4 * (2 * 9 + 1)


def test_real_images_are_there_only_where_asked_for_and_the_picture_says_so(release, capsys):
    strip.main([f"releases=[{release}]", "names=[mine]", "each=2", "out=without.png"])
    assert "real images" not in capsys.readouterr().out
    strip.main([f"releases=[{release}]", "names=[mine]", "each=2", "real=true", "out=strip.png"])
    assert "only where these are public" in capsys.readouterr().out
    picture, without = (np.asarray(Image.open(name)) for name in ("strip.png", "without.png"))
    real = Digits(class_counts=ClassCounts.uniform).test()
    first = real.images[np.flatnonzero(real.labels == 0)[0], ..., 0]
    left = picture.shape[1] - (20 * 9 + 1) * 4
    assert np.array_equal(picture[4 : 4 + 32 : 4, left + 4 : left + 36 : 4], first)
    assert len(picture) > len(without) + 9 * 4  # a row, and words below it


def test_what_cannot_be_drawn_is_refused(release):
    with rejects("releases", "[]"):
        strip.main(["out=strip.png"])
    with rejects("names", ANY):
        strip.main([f"releases=[{release}]", "out=strip.png"])
    with rejects("releases", release, "a class has 4 images"):
        strip.main([f"releases=[{release}]", "names=[mine]", "each=5", "out=strip.png"])
    with rejects("release", ANY):
        strip.main(["releases=[nowhere]", "names=[mine]", "out=strip.png"])
