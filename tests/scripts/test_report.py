"""The page about a run: whole in one file, harmless, and silent on what was measured on real data unless asked."""

from __future__ import annotations

import base64
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.samples import SampleSet
from disk import write_json
from pipeline.card import card
from privacy.mechanisms import BestOf, Gaussian, Spend
from privacy.risk import TradeOff, risk
from privacy.selection import TruncatedNegativeBinomial
from scripts import report
from store.seal import add_signature, seal
from tests.command import PUBLIC_ONLY, SMOKE, call
from tests.keys import key_pair
from tests.rejects import rejects

NAUGHTY = '<img src=x onerror="harm()"></script><script>harm()</script>'
SPENDS = [Spend("moments", Gaussian(2.0))]


class Page(HTMLParser):
    """Its elements and its text."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def made(*arguments: str, out: str = "run/report.html") -> Page:
    report.main(["run=run", *arguments])
    return Page(Path(out).read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of Private Evolution, evaluated."""
    folder = tmp_path_factory.mktemp("report") / "run"
    assert call(*SMOKE, "eval=none", f"hydra.run.dir={folder}").code == 0
    metrics = json.loads((folder / "internal" / "metrics.json").read_text())
    found = {"wrn40_4/accuracy": 0.4321, "wrn40_4/accuracy_spread": 0.0, "wrn40_4/accuracy_seeds": 1.0}
    write_json(folder / "internal" / "metrics.json", metrics | found)
    return folder


@pytest.fixture
def run(finished, here) -> Path:
    (here / "run").symlink_to(finished)
    (finished / "report.html").unlink(missing_ok=True)
    return finished


def test_the_page_says_what_the_card_says_and_shows_risk_and_ledger(run):
    page = made()
    for words in ("ε = 10", "What they are not good for", "pe.votes", "discrete Gaussian", "class names: 0, 1", "scripts.verify"):
        assert words in page.text
    certificate = json.loads((run / "release" / "privacy.json").read_text())
    assert report.percent(certificate["risk"]["true_positive_rate"]["0.01"]) in page.text
    assert report.sha256_of(run / "release" / "privacy.json") in page.text
    (picture,) = page.all("img")
    assert base64.b64decode((picture["src"] or "").split(",")[1]) == (run / "release" / "grid.png").read_bytes()
    assert picture["alt"]
    assert len(page.all("polyline")) == 2


def test_the_page_starts_with_what_has_to_be_decided(run):
    page = made()
    start = page.text[: page.text.index("What they were made from")]
    for words in ("ε = 10", "for one image", "other releases from the same private images", "It is not signed."):
        assert words in start
    assert "From the top, a row for each class: 0, 1, 2" in start


def test_the_page_says_who_signed(finished, here):
    folder = Path(shutil.copytree(finished, here / "run"))
    private, public = key_pair(here)
    with rejects("public_key", public, "not signed"):
        made(f"public_key={public}")
    add_signature(folder / "release", "key", private)
    assert "by whom was not checked" in made().text
    assert f"signed by the owner of {Path(public).name}" in made(f"public_key={public}").text
    other = key_pair(here, "other")[1]
    with rejects("public_key", other):
        made(f"public_key={other}")


def test_it_is_one_file_without_scripts_that_loads_nothing(run):
    page = made()
    assert not page.all("script")
    assert not page.all("link")
    assert page.all("meta")[1]["content"] == report.POLICY
    assert all(not (value or "").startswith(("http", "//", "file")) for _, found in page.elements for value in found.values())


def test_what_was_measured_on_real_data_is_there_only_when_asked_for(run, capsys):
    page = made()
    assert "43.2" not in page.text
    assert "must not be shared" not in page.text
    page = made("private_metrics=true", out="run/internal/report.html")
    assert "43.2 % (1 seed)" in page.text
    assert "must not be shared as the release may" in page.text
    assert "must not be shared" in capsys.readouterr().out


def test_the_release_stays_as_it_is_certified(run):
    made()
    assert not [path for path in (run / "release").iterdir() if "report" in path.name]
    with rejects("out", "run/release/report.html"):
        made("out=run/release/report.html")
    with rejects("out", "run"):
        made("out=run")


def test_names_of_classes_do_no_harm(tmp_path):
    document = {
        **{"private": True, "id": NAUGHTY, "epsilon": 2.0, "delta": 1e-5, "unit": "image", "risk": risk(SPENDS, 1e-5)},
        **{"mechanisms": [{**SPENDS[0].to_dict(), "purpose": NAUGHTY}], "public_by_assumption": [f"class names: {NAUGHTY}"]},
        **{"method": "pe", "dataset": NAUGHTY, "public_model": None, "guarantee_is_about": NAUGHTY, "public_inputs": []},
        **{"classes": [NAUGHTY, "b"]},
    }
    samples = SampleSet(np.zeros((4, 8, 8, 1), np.uint8), np.arange(4) % 2, 2)
    Image.new("L", (4, 4)).save(tmp_path / "grid.png")
    seal(tmp_path, document)
    page = Page(report.page(card(document, samples, ""), document, tmp_path, None, "It is not signed."))
    assert not page.all("script")
    assert len(page.all("img")) == 1
    assert all("onerror" not in found for _, found in page.elements)
    assert "onerror" in page.text  # as text


def test_the_best_of_several_runs_is_told_with_what_each_spends():
    candidates = ((Spend("moments", Gaussian(2.0)),), (Spend("moments", Gaussian(3.0)),))
    best = BestOf(TruncatedNegativeBinomial.of_mean(4.0, 1.0), candidates)
    text = Page(report._ledger([Spend("selection", best).to_dict()])).text
    for words in ("the best of a secret number of runs", "setting 1: moments", "setting 2: moments", "noise multiplier 3"):
        assert words in text


def test_the_figure_is_the_curve_above_chance():
    svg = Page(report._figure(TradeOff.of(SPENDS, 1e-5)))
    chance, best = (line["points"] or "" for line in svg.all("polyline"))
    heights = [float(point.split(",")[1]) for point in best.split()]
    assert heights == sorted(heights, reverse=True)  # more false positives, more true ones; up is small
    assert best.split()[0] == chance.split()[0]
    assert best.split()[-1] == chance.split()[1]


AUDIT = {
    **{"method": "pe", "dataset": "digits", "claimed_epsilon": 3.0, "delta": 1e-5, "lower_bound": 0.9, "refuted": False},
    **{"guesses": 62, "correct": 52, "confidence": 0.95, "false_positive_rate": 0.1, "true_positive_rate": 0.3},
    **{"mechanisms": [spend.to_dict() for spend in SPENDS]},
}


def test_an_attack_that_was_tried_is_a_dot_in_its_own_figure(run):
    Path("audit/internal").mkdir(parents=True)
    write_json(Path("audit/internal/audit.json"), AUDIT)
    with rejects("audit", "audit", "private_metrics=true"):
        made("audit=audit")
    page = made("private_metrics=true", "audit=audit", out="run/internal/report.html")
    assert "52 of 62 guesses were right. That shows an ε of at least 0.9" in page.text
    (dot,) = page.all("circle")
    assert (float(dot["cx"] or 0), float(dot["cy"] or 0)) == pytest.approx((46 + 26, 8 + 0.7 * 260))
    for change in ({"method": "dp_merf"}, {"true_positive_rate": None}):
        kept = {key: value for key, value in {**AUDIT, **change}.items() if value is not None}
        write_json(Path("audit/internal/audit.json"), kept)
        with rejects("audit", "audit"):
            made("private_metrics=true", "audit=audit")


def test_a_run_that_spent_nothing_has_no_attacker(here):
    assert call(*PUBLIC_ONLY).code == 0
    page = made()
    assert "ε = 0" in page.text
    assert not page.all("polyline")


@pytest.mark.parametrize("lost", ["release", "release/README.md"])
def test_what_is_no_released_run_is_refused(lost, here):
    if lost != "release":
        (here / "run" / "release").mkdir(parents=True)
    with rejects("run", "run"):
        made()


@pytest.mark.browser
def test_a_browser_shows_it_without_complaint_and_prints_it(run, opened, tmp_path):
    Path("audit/internal").mkdir(parents=True)
    write_json(Path("audit/internal/audit.json"), AUDIT)
    made("private_metrics=true", "audit=audit", out="run/internal/report.html")
    page = opened(Path("run/internal/report.html"))
    assert page.locator("#warning").is_visible()
    assert page.locator("img").first.evaluate("image => image.naturalWidth") > 0
    assert page.locator("svg").count() == 2
    for table in page.locator("table").all():
        assert table.evaluate("table => table.scrollWidth <= document.documentElement.clientWidth")
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page/") + printed.count(b"/Type /Page ") <= 6
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= 360")
