"""The dashboard: what its page holds and must not hold, and how it is asked for."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf.help import run_script
from scripts.dashboard import paper_points
from scripts.dashboard.__main__ import main, parse
from scripts.dashboard.pictures import data_uri
from tests.rejects import assert_line, rejects
from tests.scripts.dashboard.fake_runs import NAUGHTY, fake_run, made


def held(page: str, name: str) -> Any:
    """The JSON under that name in the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*)</script>', page)
    assert found
    return json.loads(found[1])


# Pictures and privacy


def test_a_grid_is_made_small_and_keeps_its_look(tmp_path):
    folder = fake_run(tmp_path / "a")
    uri = data_uri(folder / "release" / "grid.png")
    assert uri is not None
    assert len(uri) < 15_000
    small = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert small.size == (372, 180)
    whole = np.asarray(Image.open(folder / "release" / "grid.png").reduce(2), float)
    assert np.abs(np.asarray(small.convert("L"), float) - whole).mean() < 8


def pictures(page: str) -> dict[str, str]:
    rows = held(page, "runs")["rows"]
    found = {line["folder"]: held(page, f"run-{number}")["picture"] for number, line in enumerate(rows)}
    return {folder: picture for folder, picture in found.items() if picture}


def test_private_pictures_are_held_only_when_asked_for(study):
    assert "ceiling" not in pictures(made())
    assert len(pictures(made())) == 5
    assert "ceiling" in pictures(made("private=true"))


def test_private_pictures_are_marked_at_their_size(study):
    uri = pictures(made("private=true"))["ceiling"]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB"), float)
    tint = shown[..., 0] - shown[..., 1]  # the grid is grey
    assert np.median(tint[:20]) > 150  # the banner
    assert (tint[40:] > 30).mean() > 0.03  # the marks across


def test_a_picture_is_not_shown_where_the_certificate_does_not_say_private(study):
    fake_run(study / "runs" / "odd", names={"private": False})
    fake_run(study / "runs" / "odder", names={"private": "false"})
    (fake_run(study / "runs" / "oddest") / "release" / "privacy.json").unlink()
    assert not {"odd", "odder", "oddest"} & pictures(made()).keys()


def test_pictures_under_internal_are_never_held(study):
    image = io.BytesIO()
    Image.new("L", (40, 40), 77).save(image, "PNG")
    figures = study / "runs" / "floor" / "internal" / "figures"
    figures.mkdir()
    (figures / "nearest.png").write_bytes(image.getvalue())
    (figures.parent / "grid.png").write_bytes(image.getvalue())
    embedded = data_uri(figures / "nearest.png")
    assert embedded is not None
    assert embedded not in made("private=true")


def test_without_private_metrics_nothing_of_internal_is_held(study):
    page = made("private_metrics=false")
    numbers = ("accuracy", "spread", "distance", "method_seconds", "evaluation_seconds")
    for number, line in enumerate(held(page, "runs")["rows"]):
        details = held(page, f"run-{number}")
        assert [line[name] for name in numbers] == [None] * 5
        assert details["metrics"] == {}
        assert "pe/secret_curve" not in details["curves"]
        assert (details["certificate"] is None) == (line["folder"] == "ceiling")
    assert "pe/noisy_votes" in details["curves"]
    assert "pe/secret_curve" in held(made(), "run-0")["curves"]


def test_the_page_says_that_it_must_not_be_shared(study, capsys):
    assert held(made(), "runs")["private_metrics"] is True
    assert "must not be shared" in capsys.readouterr().out
    assert held(made("private_metrics=false"), "runs")["private_metrics"] is False
    assert "must not be shared" not in capsys.readouterr().out


def test_names_never_become_markup(here):
    fake_run(here / "runs" / "a<b>", NAUGHTY, NAUGHTY, names={"accountant": NAUGHTY})
    page = made()
    assert "<img src=x" not in page
    assert page.lower().count("</script>") == page.count("<script")
    assert held(page, "runs")["rows"][0]["method"] == NAUGHTY


def test_the_page_asks_for_nothing_from_outside(study):
    page = made()
    assert "default-src 'none'" in page
    assert not re.search(r"<(link|iframe|img|script)[^>]+(src|href)=", page.split("<script")[0])


def test_names_of_folders_that_are_not_text_are_kept(here):
    os.makedirs(b"runs")
    try:
        os.mkdir(b"runs/\xff")
    except OSError:
        pytest.skip("this file system refuses such names")
    assert "%FF" not in made()
    assert len(held(made(), "runs")["rows"]) == 1


def test_files_are_linked_relative_to_the_page(study):
    main(["runs", "out=elsewhere/page.html"])
    page = Path("elsewhere/page.html").read_text()
    number = [line["folder"] for line in held(page, "runs")["rows"]].index("../runs/floor")
    details = held(page, f"run-{number}")
    for name, link in [*details["shareable"], *details["internal"]]:
        assert (study / "elsewhere" / link).exists(), name
    assert ["release/grid.png", "./../runs/floor/release/grid.png"] in details["shareable"]


# Command


@pytest.mark.parametrize(
    ("arguments", "setting", "word"),
    [
        (["nowhere"], "runs=nowhere", ""),
        (["private=perhaps"], "private", "perhaps"),
        (["colour=1"], "colour=1", "out, private, private_metrics, published"),
        (["out=runs"], "out=runs", "give a file"),
        (["out=runs/floor/release/page.html"], "out=runs/floor/release/page.html", "release/"),
        (["out=runs/floor/config.yaml/page.html"], "out=runs/floor/config.yaml/page.html", " runs/floor/config.yaml is"),
        (["private=true", "private_metrics=false"], "private=true", "private_metrics=false"),
        (["published=nowhere.yaml"], "published=nowhere.yaml", "FileNotFoundError"),
    ],
)
def test_bad_input_is_one_line(study, monkeypatch, capsys, arguments, setting, word):
    monkeypatch.setattr("sys.argv", ["dashboard", *arguments])
    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 2
    assert_line(capsys.readouterr().err, setting, word)


def test_a_folder_with_an_equals_sign_is_a_folder(here):
    (here / "private=true").mkdir()
    places, settings = parse(["private=true"])
    assert (places, settings.private) == ([Path("private=true")], False)


def test_no_runs_make_a_page_that_says_so(here):
    assert held(made(), "runs")["rows"] == []


def test_published_points_come_from_a_sheet(study):
    point = {"name": "PE", "x": 10, "y": 89.1, "source": "a paper"}
    (study / "sheet.json").write_text(json.dumps([point]))
    assert held(made("published=sheet.json"), "runs")["published"] == [{**point, "panel": "accuracy", "dataset": "", "of": ""}]
    assert held(made("published=null"), "runs")["published"] == []
    usual = held(made(), "runs")["published"]
    assert {point["dataset"] for point in usual} == {"cifar10", "camelyon17", "mnist"}  # each beside runs on the same data alone
    judges = {"accuracy": {"wrn40_4", "resnet9", "cnn"}, "distance": {"fid"}}  # and with the same judge alone
    assert all(point["of"] in judges[point["panel"]] for point in usual)


@pytest.mark.parametrize("change", [{"x": 0}, {"x": "1"}, {"y": True}, {"panel": "time"}, {"colour": "red"}, {"source": ...}])
def test_a_bad_point_is_refused_by_its_number(tmp_path, change):
    point = {"name": "a", "x": 1, "y": 2, "source": "b"}
    bad = {key: value for key, value in {**point, **change}.items() if value is not ...}
    (tmp_path / "sheet.yaml").write_text(json.dumps([point, bad]))
    with rejects("published", tmp_path / "sheet.yaml", "point 2"):
        paper_points.load(tmp_path / "sheet.yaml")


@pytest.mark.slow
def test_a_real_run_is_read(here):
    from tests.command import call  # imports every method

    assert call("+experiment=smoke", "device=cpu", "eval.downstream.steps=2", "hydra.run.dir=runs/a").code == 0
    page = made()
    (found,) = held(page, "runs")["rows"]
    assert (found["status"], found["private"], found["method"], found["num_samples"]) == ("finished", True, "pe", 50)
    assert found["accuracy"] is not None
    assert found["distance"] is not None
    assert found["picture"]
    assert len(held(page, "run-0")["curves"]["pe/noisy_votes"]["points"]) == 2
