"""Looking at a release: no private pixel without being asked, none unmarked, and the right images beside each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.grid import Block
from data.rounds import keep_round, kept_rounds
from data.samples import SampleSet
from eval import pictures
from eval.pictures import Pictures, rounds_picture, spread_over_classes, votes_picture
from tests.eval.world import PIXELS, PRIVATE, SAMPLE, TEST, context, flat

RESULTS = {"distances.png", "distances.svg"}
OF_ROUNDS = {"rounds.png", "votes.png"} | {
    f"{name}.{kind}" for name in ("votes_spread", "distances_by_round") for kind in ("png", "svg")
}


def drawn(folder: Path, private_figures: bool, **settings) -> dict[str, np.ndarray]:
    """The pixels of every picture that the evaluator leaves; the svg files by their names alone."""
    figures = folder / "figures"
    figures.mkdir()
    judged = context(figures, flat(SAMPLE, 10), flat(PRIVATE, 40), flat(TEST, 20), private_figures=private_figures, **settings)
    assert list(Pictures(embedding=PIXELS, rows=4, neighbours=3).evaluate(judged)) == []
    assert all(path.suffix in (".png", ".svg") for path in figures.iterdir())
    return {
        path.name: np.asarray(Image.open(path).convert("RGB")) if path.suffix == ".png" else np.zeros((1, 1, 3), np.uint8)
        for path in figures.iterdir()
    }


def shows(picture: np.ndarray, channel: int) -> bool:
    """Whether a pixel is of the colours that only images of this kind have."""
    others = np.delete(picture, channel, axis=2).any(2)
    return bool(((picture[..., channel] >= 100) & ~others).any())


def history(folder: Path) -> Path:
    """Populations of 10 images whose levels rise by 20 a round; votes rise with the row in round 1 and fall in round 2."""
    for t, votes in enumerate([np.arange(10.0), np.arange(10.0)[::-1].copy(), None]):
        population = flat(SAMPLE, 10)
        population.images[..., SAMPLE] += 20 * t
        keep_round(folder, t, population, votes)
    return folder


@pytest.fixture
def blocks(monkeypatch) -> list[tuple[str, list[list[int]]]]:
    """What is put side by side instead of drawn: titles, and the levels (from 0) of the images in their rows."""
    seen: list[tuple[str, list[list[int]]]] = []

    def tiled(blocks: list[Block], names: list[str], told: str) -> list[str]:
        seen.extend((one.title, [[int(image.max()) - 100 for image in row] for row in one.rows]) for one in blocks)
        return names

    monkeypatch.setattr(pictures, "tiled", tiled)
    return seen


def test_without_being_asked_no_private_pixel_is_in_any_file_and_one_line_says_what_is_missing(tmp_path, capsys):
    found = drawn(tmp_path, private_figures=False, checkpoints=history(tmp_path))
    assert found.keys() == RESULTS | OF_ROUNDS
    assert not any(shows(picture, PRIVATE) or shows(picture, TEST) for picture in found.values())
    assert shows(found["rounds.png"], SAMPLE)
    lines = [line for line in capsys.readouterr().err.splitlines() if "nearest_pixels.png" in line]
    assert len(lines) == 1
    assert "eval.private_figures=true" in lines[0]


def test_private_pixels_are_in_the_pictures_that_were_watermarked_and_in_no_other(tmp_path, monkeypatch):
    marked, original = [], pictures.save_private

    def watched(picture: Image.Image, path: Path) -> None:
        marked.append(path.name)
        original(picture, path)

    monkeypatch.setattr(pictures, "save_private", watched)
    found = drawn(tmp_path, private_figures=True, checkpoints=history(tmp_path))
    assert {name for name, picture in found.items() if shows(picture, PRIVATE)} == set(marked) == {"nearest_pixels.png"}
    assert found.keys() == RESULTS | OF_ROUNDS | set(marked)


def test_a_release_without_rounds_has_no_pictures_of_them(tmp_path):
    assert drawn(tmp_path, private_figures=False).keys() == RESULTS


def test_each_sample_stands_beside_its_nearest_private_images_nearest_first(tmp_path, blocks):
    private = flat(PRIVATE, 40)
    samples = private[[7, 30, 11]]
    samples.images = samples.images + np.array([0, 1, 0], np.uint8)  # nearest to their own level, then to those around it
    judged = context(tmp_path, samples, private, flat(TEST, 5), private_figures=True)
    names: object = Pictures(rows=3, neighbours=3)._nearest_picture(judged, PIXELS)
    (_, shown), (_, near) = blocks
    assert shown == [[30], [7]]  # the first of each class
    assert [row[0] for row in near] == [30, 7]
    assert [set(row) for row in near] == [{29, 30, 31}, {6, 7, 8}]
    assert names == ["kind 0", "kind 1"]


def test_rounds_stand_side_by_side_from_the_start_to_the_last(tmp_path, blocks):
    names: object = rounds_picture(list(kept_rounds(history(tmp_path))), ["kind 0", "kind 1"])
    even, odd = np.arange(0, 10, 2), np.arange(1, 10, 2)
    assert names == ["kind 0", "kind 1"]
    assert blocks == [
        (title, [(even + 20 * t).tolist(), (odd + 20 * t).tolist()]) for t, title in enumerate(["start", "round 1", "round 2"])
    ]


def test_the_distances_of_each_round_are_those_of_its_own_images(tmp_path, monkeypatch):
    seen: list[tuple[str, np.ndarray]] = []
    monkeypatch.setattr(pictures, "cumulative", lambda _, values, label, **style: seen.append((label, values)))
    for t in range(2):
        population = flat(PRIVATE, 10)
        population.images[..., PRIVATE] = 100 + 20 * t + np.arange(10)[:, None, None]
        keep_round(tmp_path, t, population, None)
    drawn(tmp_path, False, checkpoints=tmp_path)  # private images have the levels 100 to 139
    by_round = [(label, values) for label, values in seen if label in ("start", "round 1")]
    assert [label for label, _ in by_round] == ["start", "start", "round 1", "round 1"]
    (_, from_start), (_, to_start), (_, from_first), (_, to_first) = by_round
    assert not from_start.any()
    assert not from_first.any()
    step = np.sqrt(8 * 8) / 255  # of one level, in the space of pixels
    assert to_start == pytest.approx(step * np.maximum(np.arange(40) - 9, 0), abs=1e-3)
    assert to_first == pytest.approx(step * np.maximum(np.maximum(20 - np.arange(40), np.arange(40) - 29), 0), abs=1e-3)


@pytest.mark.parametrize("having", [0, 1])
def test_rounds_that_an_earlier_version_kept_without_a_sample_have_their_other_pictures(tmp_path, having):
    for file in sorted((history(tmp_path) / "rounds").iterdir())[having:]:
        with np.load(file) as arrays:
            kept = {name: values for name, values in arrays.items() if name != "sample"}
        np.savez(file, **kept)
    by_round = {"distances_by_round.png", "distances_by_round.svg"}
    assert drawn(tmp_path, False, checkpoints=tmp_path).keys() == RESULTS | (OF_ROUNDS if having else OF_ROUNDS - by_round)


def test_the_most_and_the_least_voted_of_each_round_are_shown_in_order(tmp_path, blocks):
    votes_picture(list(kept_rounds(history(tmp_path)))[:2], ["kind 0", "kind 1"])
    rising, falling = [[8, 6, 4, 2, 0], [9, 7, 5, 3, 1]], [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    second = [[[level + 20 for level in row] for row in rows] for rows in (falling, rising)]
    assert [rows for _, rows in blocks] == [rising, falling, *second]
    assert [title.split(":")[0] for title, _ in blocks] == ["round 1", "fewest votes", "round 2", "fewest votes"]


def test_of_many_rounds_some_are_shown_with_the_first_and_the_last(tmp_path, blocks):
    for t in range(30):
        keep_round(tmp_path, t, flat(SAMPLE, 4), None)
    rounds_picture(list(kept_rounds(tmp_path)), ["kind 0", "kind 1"])
    assert (blocks[0][0], blocks[-1][0], len(blocks)) == ("start", "round 29", pictures.MOST_ROUNDS)


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (4, [0, 1, 2]), (6, [0, 3, 1, 4, 2, 5]), (100, [0, 3, 6, 1, 4, 2, 5])])
def test_the_samples_shown_are_the_first_of_each_class(count, expected):
    assert spread_over_classes(np.array([0, 1, 2, 0, 1, 2, 0]), count).tolist() == expected


def test_one_class_fills_the_rows():
    assert spread_over_classes(np.zeros(30, np.int64), 12).tolist() == list(range(12))


def test_a_set_without_classes_has_no_names(tmp_path, blocks):
    samples = SampleSet(flat(SAMPLE, 6).images, np.zeros(6, np.int64), 1)
    judged = context(tmp_path, samples, flat(PRIVATE, 10), flat(TEST, 5), private_figures=True)
    names: object = Pictures(rows=6, neighbours=2)._nearest_picture(judged, PIXELS)
    assert names == []
    assert len(blocks[0][1]) == 6
