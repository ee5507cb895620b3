"""The dashboard: what is read of run folders, what its page holds and must not hold, and how it behaves in a browser."""

from __future__ import annotations

import base64
import io
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conf.help import run_script
from errors import InputError
from scripts.dashboard import published
from scripts.dashboard.__main__ import main, parse
from scripts.dashboard.folders import CURVE_POINTS, Contents, find, read
from scripts.dashboard.pictures import data_uri
from tests.scripts.fake_runs import fake_run, many

NAUGHTY = '<img src=x onerror="window.harmed=1"></script><script>window.harmed=1</script>'


@pytest.fixture
def study(here: Path) -> Path:
    """Three methods on the digits: pe at two ε and two seeds, a floor, and a ceiling whose pictures are private."""
    for seed in (0, 1):
        for epsilon, accuracy in ((1.0, 0.7), (10.0, 0.8)):
            fake_run(
                here / "runs" / "pe" / f"{epsilon:g}-{seed}", "pe", epsilon=epsilon, seed=seed, accuracy=accuracy + seed / 50
            )
    fake_run(here / "runs" / "floor", "public_only", epsilon=0.0, accuracy=0.6, distance=80.0)
    fake_run(here / "runs" / "ceiling", "real_data", epsilon=math.inf, accuracy=0.99, distance=0.0, private=False, colour=5)
    return here


def made(*arguments: str) -> str:
    main(list(arguments))
    return Path("runs/dashboard.html").read_text()


def held(page: str, name: str) -> Any:
    """The JSON under that name in the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*)</script>', page)
    assert found
    return json.loads(found[1])


def row(folder: Path, **contents: bool) -> dict[str, Any]:
    return read(folder, "name", Contents(**contents))[0]


# Folders


def test_a_run_becomes_a_row(tmp_path):
    found = row(fake_run(tmp_path / "a", "dp_diffusion", epsilon=3.0, seed=7, accuracy=0.9, distance=14.5))
    assert found["status"] == "finished"
    assert found["private"] is True
    assert (found["method"], found["dataset"], found["seed"]) == ("dp_diffusion", "digits", 7)
    assert (found["epsilon"], found["delta"], found["num_samples"]) == (3.0, 0.00034, 3000)
    assert (found["accuracy"], found["spread"], found["classifiers"], found["classifier"]) == (0.9, 0.014, 3, "wrn40_4")
    assert (found["distance"], found["space"]) == (14.5, "frechet/public_features_train")
    assert (found["method_seconds"], found["evaluation_seconds"]) == (207.0, 60.0)


def test_runs_are_found_once_and_not_inside_each_other(tmp_path):
    runs = [fake_run(tmp_path / name) for name in ("a", "sweep/0", "sweep/1")]
    (tmp_path / "internal" / "reference_statistics").mkdir(parents=True)
    (tmp_path / "sweep" / "internal").mkdir()
    fake_run(runs[0] / "internal" / "ranks" / "1")
    assert find([tmp_path, runs[0], tmp_path / "sweep"]) == runs


def test_runs_that_a_sweep_links_to_are_found(tmp_path):
    fake_run(tmp_path / "by_config" / "ab12")
    (tmp_path / "sweeps" / "now").mkdir(parents=True)
    (tmp_path / "sweeps" / "now" / "0").symlink_to(tmp_path / "by_config" / "ab12")
    assert len(find([tmp_path])) == 1
    assert find([tmp_path / "sweeps"]) == [tmp_path / "sweeps" / "now" / "0"]


def test_an_infinite_epsilon_is_not_private(tmp_path):
    found = row(fake_run(tmp_path / "a", "real_data", epsilon=math.inf, private=False))
    assert (found["epsilon"], found["private"]) == ("inf", False)
    assert "without noise" in found["problem"]


def damage(folder: Path, how: str) -> None:
    if how == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif how == "release emptied":
        (folder / "release" / "privacy.json").unlink()
    elif how == "release gone":
        shutil.rmtree(folder / "release")
    else:
        name, text = how.split(": ", 1)
        (folder / name).write_bytes(text.encode("latin-1"))


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "release emptied",
        "release gone",
        "config.yaml: {",
        "config.yaml: [1]",
        "config.yaml: \xff",
        "internal/metrics.json: {",
        "internal/metrics.json: []",
        'internal/metrics.json: {"wrn40_4/accuracy": "x"}',
        "release/privacy.json: 3",
    ],
)
def test_a_broken_run_is_said_to_be_broken(tmp_path, how):
    damage(fake_run(tmp_path / "a"), how)
    assert find([tmp_path]) == [tmp_path / "a"]
    found = row(tmp_path / "a")
    assert found["status"] == "broken"
    assert found["problem"]
    assert str(tmp_path) not in found["problem"]


def test_an_unfinished_run_shows_what_it_has(tmp_path):
    found = row(fake_run(tmp_path / "a", finished=False))
    assert (found["status"], found["private"], found["epsilon"], found["accuracy"]) == ("unfinished", True, 10.0, None)
    shutil.rmtree(tmp_path / "a" / "release")
    assert (row(tmp_path / "a")["status"], row(tmp_path / "a")["private"]) == ("unfinished", None)


def test_curves_are_thinned_and_a_torn_line_is_left_out(tmp_path):
    folder = fake_run(tmp_path / "a")
    lines = [json.dumps({"loss": float(t), "step": t, "seconds": 0.0, "internal": False}) for t in range(1001)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"loss": 1']))
    points = read(folder, "a", Contents())[1]["curves"]["loss"]["points"]
    assert len(points) <= CURVE_POINTS + 1
    assert (points[0], points[-1]) == ([0, 0.0], [1000, 1000.0])


def test_the_first_of_several_distances_and_the_configured_classifier_are_shown(tmp_path):
    folder = fake_run(tmp_path / "a")
    metrics = {
        "discriminator/accuracy": 0.5,
        "cnn/accuracy": 0.1,
        "wrn40_4/accuracy": 0.2,
        "kid/test": 1.0,
        "fid/test_n": 9,
        "fid/test": 2.0,
    }
    (folder / "internal" / "metrics.json").write_text(json.dumps(metrics))
    found = row(folder)
    assert (found["classifier"], found["accuracy"], found["space"], found["distance"]) == ("wrn40_4", 0.2, "fid/test", 2.0)


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


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path):
    folder = fake_run(tmp_path / "a")
    (folder / "release" / "grid.png").write_bytes(b"no picture")
    assert row(folder)["picture"] is False
    assert row(folder)["status"] == "finished"


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
    ("arguments", "said"),
    [
        (["nowhere"], "error: runs=nowhere: no such folder"),
        (["private=perhaps"], "error: private: Value 'perhaps' is not a valid bool"),
        (["colour=1"], "error: colour=1: no such key; out, private, private_metrics, published"),
        (["out=runs"], "error: out=runs: is a folder"),
        (["out=runs/floor/release/page.html"], "error: out=runs/floor/release/page.html: not inside a release/"),
        (
            ["out=runs/floor/config.yaml/page.html"],
            "error: out=runs/floor/config.yaml/page.html: runs/floor/config.yaml is a file",
        ),
        (["private=true", "private_metrics=false"], "error: private=true: with private_metrics=false"),
        (["published=nowhere.yaml"], "error: published=nowhere.yaml: cannot be read"),
    ],
)
def test_bad_input_is_one_line(study, monkeypatch, capsys, arguments, said):
    monkeypatch.setattr("sys.argv", ["dashboard", *arguments])
    with pytest.raises(SystemExit) as end:
        run_script(main)
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1


def test_a_folder_with_an_equals_sign_is_a_folder(here):
    (here / "private=true").mkdir()
    places, settings = parse(["private=true"])
    assert (places, settings.private) == ([Path("private=true")], False)


def test_no_runs_make_a_page_that_says_so(here):
    assert held(made(), "runs")["rows"] == []


def test_published_points_come_from_a_sheet(study):
    point = {"name": "PE", "x": 10, "y": 89.1, "source": "a paper"}
    (study / "sheet.json").write_text(json.dumps([point]))
    assert held(made("published=sheet.json"), "runs")["published"] == [{**point, "panel": "accuracy", "dataset": ""}]
    assert held(made("published=null"), "runs")["published"] == []
    usual = held(made(), "runs")["published"]
    assert {point["dataset"] for point in usual} == {"cifar10", "camelyon17", "mnist"}  # each beside runs on the same data alone


@pytest.mark.parametrize("change", [{"x": 0}, {"x": "1"}, {"y": True}, {"panel": "time"}, {"colour": "red"}, {"source": ...}])
def test_a_bad_point_is_refused_by_its_number(tmp_path, change):
    point = {"name": "a", "x": 1, "y": 2, "source": "b"}
    bad = {key: value for key, value in {**point, **change}.items() if value is not ...}
    (tmp_path / "sheet.yaml").write_text(json.dumps([point, bad]))
    with pytest.raises(InputError, match="point 2"):
        published.load(tmp_path / "sheet.yaml")


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


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = "no Chromium found: apt-get install chromium, or CHROMIUM=its path"
        pytest.fail(missing) if os.environ.get("REQUIRE_BROWSER") else pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser) -> Iterator[Any]:
    """Opens a page from its file, offline; whatever its console says, or it asks the network for, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    context.set_default_timeout(20_000)
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: complaints.append(request.url) if request.url.startswith("http") else None)

    def open_page(path: Path) -> Any:
        page.goto(path.resolve().as_uri(), wait_until="domcontentloaded")
        return page

    yield open_page
    context.close()
    assert complaints == []


def column(page: Any, name: str) -> list[str]:
    number = page.locator("#table thead th").all_inner_texts().index(name) + 1
    return page.locator(f"#table tbody td:nth-child({number})").all_inner_texts()


@pytest.mark.browser
def test_the_table_sorts_by_mouse_and_keyboard(study, opened):
    (study / "runs" / "broken").mkdir()
    made()
    page = opened(Path("runs/dashboard.html"))
    assert page.locator("#warning").inner_text().count("must not be shared") == 1
    page.get_by_role("button", name="Accuracy %").click()
    up = column(page, "Accuracy %")
    assert up == ["60.0 ± 1.4", "70.0 ± 1.4", "72.0 ± 1.4", "80.0 ± 1.4", "82.0 ± 1.4", "99.0 ± 1.4", "–"]
    page.get_by_role("button", name="Accuracy %").press("Enter")
    assert column(page, "Accuracy %") == [*up[-2::-1], "–"]
    assert page.locator("th[aria-sort=descending]").inner_text() == "Accuracy %"
    page.get_by_role("button", name="ε spent").press("Space")
    assert column(page, "ε spent") == ["0", "1", "1", "10", "10", "∞", "–"]
    assert sorted(set(column(page, "Status"))) == ["broken", "finished"]


@pytest.mark.browser
def test_the_filter_reaches_table_plots_and_pictures(study, opened):
    made()
    page = opened(Path("runs/dashboard.html"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#accuracy .legendtext")
    names = page.locator("#accuracy .legendtext").all_text_contents
    assert names() == ["pe", "public_only (ε = 0)", "real_data (ε = ∞)"]
    page.select_option("#method", "pe")
    page.get_by_text("4 of 6 runs").wait_for()
    page.wait_for_function("document.querySelectorAll('#accuracy .legendtext').length === 1")
    drawn = page.evaluate("byId('accuracy').data[0]")
    assert (drawn["x"], [round(y, 6) for y in drawn["y"]]) == ([1, 10], [71.0, 81.0])
    assert drawn["error_y"]["array"] == pytest.approx([math.sqrt(2)] * 2)
    page.fill("#search", "pe/10-1")
    page.get_by_text("1 of 6 runs").wait_for()
    assert page.locator("#pictures figure").count() == 1
    page.fill("#search", "no such run")
    page.get_by_text("No run matches").wait_for()


@pytest.mark.browser
def test_published_points_stand_beside_the_runs(study, opened):
    first = {"name": "A paper", "x": 3, "y": 85, "source": "Table <2>"}
    (study / "sheet.yaml").write_text(json.dumps([first, {**first, "name": "B", "panel": "distance"}]))
    made("published=sheet.yaml")
    page = opened(Path("runs/dashboard.html"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#distance .legendtext")
    assert page.locator("#accuracy .legendtext").all_text_contents()[-1] == "A paper"
    assert page.locator("#distance .legendtext").all_text_contents()[-1] == "B"


@pytest.mark.browser
def test_pictures_stand_side_by_side_at_the_chosen_epsilon(study, opened):
    fake_run(study / "runs" / "loda", "dp_loda", epsilon=10.0 - 1e-9)
    made()
    page = opened(Path("runs/dashboard.html"))
    assert page.locator("#epsilon option").all_inner_texts() == ["0", "1", "10"]
    page.select_option("#epsilon", "10")
    assert page.locator("#pictures figcaption .link").all_inner_texts() == ["dp_loda on digits", "pe on digits"]
    page.locator("#grids").scroll_into_view_if_needed()
    page.wait_for_function("[...document.querySelectorAll('#pictures img')].every((image) => image.naturalWidth === 372)")
    page.get_by_role("button", name="all 3").click()
    assert page.locator("#pictures figure").count() == 3


@pytest.mark.browser
def test_a_row_opens_its_details(study, opened):
    made()
    page = opened(Path("runs/dashboard.html"))
    page.locator("#table tbody tr", has_text="public_only").get_by_role("button").press("Enter")
    dialog = page.get_by_role("dialog")
    said = dialog.inner_text()
    for words in (
        "add or remove one example",
        "noise multiplier 0.62",
        "frechet/public_features_train_floor",
        "release/samples.npz",
    ):
        assert words in said
    assert dialog.locator("img").evaluate("(image) => image.naturalWidth") == 372
    dialog.locator("#curves .scatterlayer").first.wait_for()
    dialog.locator("summary").click()
    assert "initial_labels: random" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


@pytest.mark.browser
@pytest.mark.parametrize(("asked", "count"), [(False, 0), (True, 1)])
def test_a_private_picture_is_shown_only_when_asked_for(study, opened, asked, count):
    made(*["private=true"] * asked)
    page = opened(Path("runs/dashboard.html"))
    assert page.locator("#warning .danger").count() == count
    page.locator("#table tbody tr", has_text="real_data").click()
    assert page.get_by_role("dialog").locator("img").count() == count
    assert page.locator("#epsilon option", has_text="∞").count() == count


@pytest.mark.browser
def test_hostile_names_are_text(here, opened):
    for epsilon in (1.0, 10.0):
        fake_run(here / "runs" / f"{NAUGHTY.replace('/', '')}{epsilon}", NAUGHTY, NAUGHTY, epsilon, names={"accountant": NAUGHTY})
    made()
    page = opened(Path("runs/dashboard.html"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#accuracy .legendtext")
    page.locator("#table tbody tr").first.click()
    assert NAUGHTY in page.get_by_role("dialog").inner_text()
    assert page.evaluate("window.harmed") is None


@pytest.mark.browser
def test_an_empty_page_says_what_to_do(here, opened):
    made()
    page = opened(Path("runs/dashboard.html"))
    assert "python run.py" in page.locator("#empty").inner_text()
    assert not page.locator("#content").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_is_not_wider_than_the_screen(study, opened, width):
    made()
    page = opened(Path("runs/dashboard.html"))
    page.set_viewport_size({"width": width, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_five_hundred_runs_load_in_two_seconds(here, opened):
    many(here / "runs", 500)
    made()
    assert Path("runs/dashboard.html").stat().st_size < 20e6
    seconds = []
    for _ in range(3):  # others may use this machine
        page = opened(Path("runs/dashboard.html"))
        page.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
        assert page.locator("#table tbody tr").count() == 500
        seconds.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000)
    assert min(seconds) < 2, seconds
