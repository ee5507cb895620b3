"""What a page for the terminal says of a folder, and that it writes and spends nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts import inspect
from tests.data.test_folder import picture, png
from tests.data.test_layouts import put
from tests.rejects import rejects

PLACE = ["dataset=folder", "dataset.path=mine", "dataset.image_size=8"]
ONE = "privacy.epsilon=10"  # budget: each that is shown takes seconds


@pytest.fixture
def mine(here: Path) -> Path:
    files = {f"{('ill', 'well')[i % 2]}/patient_{i % 30:02d}/{i}.png": png(picture()) for i in range(120)}
    return put(Path("mine"), {**files, "notes.txt": "x"})


def page(capsys, *settings: str) -> str:
    inspect.main([*PLACE, *settings])
    return capsys.readouterr().out


def test_it_says_what_would_be_read_and_what_each_method_costs(mine, capsys):
    text = page(capsys)
    for words in ("do not share", "class folders with folders in them", "1 .txt", "8×8", "RGB", "dp_moments"):
        assert words in text
    assert "pe, dp_loda: a public model is needed" in text
    assert "dp_diffusion at ε = 1, dp_diffusion at ε = 10: The network starts from random weights" in text
    assert sorted(path.name for path in Path().iterdir()) == ["mine"]


def test_a_budget_that_is_given_is_the_one_that_is_shown(mine, capsys):
    assert "dp_diffusion at ε = 3: The network starts" in page(capsys, "privacy.epsilon=3")


def test_bad_files_deep_ones_and_users_are_told(mine, capsys):
    deep = png(np.arange(64, dtype=np.uint16).reshape(8, 8) % 8)
    put(mine, {"ill/patient_90/bad.png": "x", "ill/patient_91/deep.png": deep})
    text = page(capsys, "dataset.user_pattern='patient_([0-9]+)'", "privacy.unit=user", "dataset.test_fraction=0", ONE)
    for words in ("bad.png is no readable image", "go from 0 to 7; dataset.window", "32 users", "is a user: 32"):
        assert words in text
    assert "go from 0 to 7\n" in page(capsys, "dataset.window=[0,9]", "dataset.test_fraction=0", ONE)


def test_images_for_tests_that_are_also_private_are_counted(here, capsys):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    files = {f"train/{'ab'[i % 2]}/{i}.png": png(image) for i, image in enumerate(images)}
    put(Path("mine"), files | {f"test/{'ab'[i % 2]}/{i}.png": png(image) for i, image in enumerate(images[:3])})
    assert "3 of 3 images for tests are also private ones" in page(capsys, ONE)


def test_an_embedded_dataset_is_told_by_its_public_numbers(here, capsys):
    inspect.main([ONE])
    text = capsys.readouterr().out
    assert "1,437 private images" in text
    assert "dp_loda" in text


def test_a_place_that_is_not_there_is_refused(here):
    with rejects("dataset.path", "mine"):
        inspect.main(PLACE)
