"""The dashboard: how its page behaves in a real browser."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from privacy.mechanisms import Unit
from tests.scripts.dashboard.fake_runs import NAUGHTY, fake_run, made, many

pytestmark = pytest.mark.browser


AT_LOAD = """addEventListener("load", () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  window.atLoad = { rows: all("#table tbody tr").length, images: all("img").length, plotly: "Plotly" in window };
});"""


def column(page: Any, name: str) -> list[str]:
    number = page.locator("#table thead th").all_inner_texts().index(name) + 1
    return page.locator(f"#table tbody td:nth-child({number})").all_inner_texts()


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


def test_the_page_opens_with_the_comparison_and_the_best_in_bold(study, opened):
    fake_run(study / "runs" / "loda", "dp_loda", epsilon=10.0, accuracy=0.9, distance=30.0, settings={"method.adapter": "lora"})
    made()
    page = opened(Path("runs/dashboard.html"))
    cells = page.locator("#comparison tbody tr").all_inner_texts()
    assert [text.split() for text in cells if "10" in text.split()] == [
        ["10", "dp_loda", "adapter=lora", "90.0", "30.0", "1", "seed"],
        ["10", "pe", "81.0", "±", "1.4", "20.0", "±", "0.0", "2", "seeds"],
    ]
    assert page.locator("#comparison strong").all_inner_texts() == ["90.0", "20.0"]
    above = "byId('comparison').getBoundingClientRect().top < byId('table').getBoundingClientRect().top"
    assert page.evaluate(above)
    page.select_option("#method", "dp_loda")
    page.get_by_text("1 of 7 runs").wait_for()
    assert page.locator("#comparison tbody tr").count() == 2  # with the name of the data


def test_a_folder_is_a_short_link_that_does_not_widen_the_table(here, opened):
    place = here / "runs" / "by_config" / ("0123456789abcdef" * 4)
    fake_run(place)
    made()
    page = opened(Path("runs/dashboard.html"))
    link = page.locator("#table td.folder a")
    assert (link.inner_text(), link.get_attribute("title")) == (place.name, f"by_config/{place.name}")
    shown = link.evaluate(
        "(link) => [link.getClientRects().length, link.clientHeight < 2 * parseFloat(getComputedStyle(link).fontSize)]"
    )
    assert shown == [1, True]
    assert page.evaluate("byId('table').scrollWidth <= byId('table').parentElement.clientWidth")
    assert Path("runs", link.get_attribute("href")) == Path("runs", "by_config", place.name)


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


def test_published_points_stand_beside_the_runs(study, opened):
    first = {"name": "A paper", "x": 3, "y": 85, "source": "Table <2>"}
    (study / "sheet.yaml").write_text(json.dumps([first, {**first, "name": "B", "panel": "distance"}]))
    made("published=sheet.yaml")
    page = opened(Path("runs/dashboard.html"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#distance .legendtext")
    assert page.locator("#accuracy .legendtext").all_text_contents()[-1] == "A paper"
    assert page.locator("#distance .legendtext").all_text_contents()[-1] == "B"


def test_published_points_of_one_name_are_one_and_stand_with_the_judge_that_they_are_of(study, opened):
    point = {"name": "A", "x": 3, "y": 85, "source": "s"}
    elsewhere = [
        {**point, "name": "other classifier", "of": "resnet9"},
        {**point, "name": "FID", "panel": "distance", "of": "fid"},
    ]
    (study / "sheet.yaml").write_text(json.dumps([point, {**point, "x": 5, "of": "wrn40_4"}, *elsewhere]))
    made("published=sheet.yaml")
    page = opened(Path("runs/dashboard.html"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_selector("#distance .legendtext")
    names = page.evaluate("['accuracy', 'distance'].map((id) => byId(id).data.map((trace) => trace.name))")
    assert names[0][-1] == "A"
    assert page.evaluate("byId('accuracy').data.at(-1).x") == [3, 5]
    assert not {"other classifier", "FID"} & {name for panel in names for name in panel}


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


def test_a_row_opens_its_details(study, opened):
    made()
    page = opened(Path("runs/dashboard.html"))
    page.locator("#table tbody tr", has_text="public_only").get_by_role("button").press("Enter")
    dialog = page.get_by_role("dialog")
    said = dialog.inner_text()
    for words in (
        Unit.image.neighbouring,
        "noise multiplier 0.62",
        "frechet/public_features_train_floor",
        "method: votes\t1.3 min",
        "memory\t1.3 GiB",
        "release/samples.npz",
    ):
        assert words in said
    assert dialog.locator("img").evaluate("(image) => image.naturalWidth") == 372
    dialog.locator("#curves .scatterlayer").first.wait_for()
    dialog.locator("summary").click()
    assert "initial_labels: random" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_a_certificate_of_any_shape_can_be_looked_at(here, opened):
    fake_run(here / "runs" / "odd", names={"mechanisms": [None, 3, {"purpose": "pe.votes", "count": 2}]})
    made()
    page = opened(Path("runs/dashboard.html"))
    page.locator("#table tbody tr").first.click()
    assert "pe.votes × 2" in page.get_by_role("dialog").inner_text()


@pytest.mark.parametrize(("asked", "count"), [(False, 0), (True, 1)])
def test_a_private_picture_is_shown_only_when_asked_for(study, opened, asked, count):
    made(*["private=true"] * asked)
    page = opened(Path("runs/dashboard.html"))
    assert page.locator("#warning .danger").count() == count
    page.locator("#table tbody tr", has_text="real_data").click()
    assert page.get_by_role("dialog").locator("img").count() == count
    assert page.locator("#epsilon option", has_text="∞").count() == count


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


def test_an_empty_page_says_what_to_do(here, opened):
    made()
    page = opened(Path("runs/dashboard.html"))
    assert "python run.py" in page.locator("#empty").inner_text()
    assert not page.locator("#content").is_visible()


@pytest.mark.parametrize("width", [400, 500, 1280, 1400])
def test_the_page_is_not_wider_than_the_screen(study, opened, width):
    made()
    page = opened(Path("runs/dashboard.html"))
    page.set_viewport_size({"width": width, "height": 850})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_five_hundred_runs_are_a_table_when_the_page_has_loaded_and_what_is_slow_waits_until_it_is_seen(here, opened):
    many(here / "runs", 500)
    made()
    assert Path("runs/dashboard.html").stat().st_size < 20e6
    page = opened(Path("runs/dashboard.html"))
    page.add_init_script(AT_LOAD)
    page.reload(wait_until="load")
    loaded = page.evaluate("atLoad")
    assert loaded["rows"] == 500
    assert loaded["images"] <= 12  # one for each method and dataset
    assert not loaded["plotly"]
