"""One page about one run, for a reader who is no engineer: what was made, what it can tell about a person, how to check it.

    python -m scripts.report run=runs/…                           # into runs/…/report.html
    python -m scripts.report run=runs/… out=report.html           # elsewhere
    python -m scripts.report run=runs/… public_key=holder.pem     # and whether the owner of that key signed it
    python -m scripts.report run=runs/… private_metrics=true      # with numbers measured on real data: into internal/report.html
    python -m scripts.report run=runs/… private_metrics=true audit=runs/audit/…    # and what scripts.audit found of its method

The page is one file, needs no server and no network, runs no script, and prints well. It starts with what has to be decided, says
what README.md of the release says, and shows the trade-off of an attacker and every use of the private images. It may be
shared as the release may, unless `private_metrics=true`: how good the images are is measured on real data.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import date
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from markdown_it import MarkdownIt
from omegaconf import MISSING, OmegaConf

from conf.compose import from_stored
from conf.help import run_script
from disk import sha256_of, write_whole
from errors import reject_unless, require, unusable
from pipeline.card import CARD, PICTURE, PROTECTION, title, without_header
from pipeline.report import beside_references, columns, unbalanced
from privacy.inherited import CERTIFICATE
from privacy.mechanisms import Spend
from privacy.risk import TradeOff, format_epsilon, percent
from privacy.signing import SIGNATURE, fits
from scripts.verify import read_certificate
from store.run_dir import RunDir
from store.seal import altered

UNSIGNED = "It is not signed."
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = Path(__file__).parent / "dashboard" / "page.css"
OWN_STYLE = """
body { max-width: 54rem; font-size: 16px; }
h2 { border-bottom: 1px solid var(--line); padding-bottom: .2rem; }
table { margin: .75rem 0; font-size: .93rem; } caption { text-align: left; color: var(--muted); padding-bottom: .3rem; }
thead th { position: static; padding: .32rem .5rem; white-space: normal; }
svg { width: 100%; max-width: 30rem; height: auto; } svg text { fill: var(--text); font-size: 12px; }
code { overflow-wrap: anywhere; }
@media print { :root { color-scheme: light; } body { font-size: 11pt; } table, svg, img, h2 + p { break-inside: avoid; } }
"""
MECHANISMS = {
    "gaussian": "noise on sums and means (Gaussian)",
    "discrete_gaussian": "noise on counted votes (discrete Gaussian)",
    "sampled_gaussian": "noise on training steps, each on a random sample (Gaussian)",
    "discrete_laplace": "noise on counts (discrete Laplace)",
    "permute_and_flip": "a noisy choice (permute and flip)",
    "declared_public": "none: declared to be public",
    "best_of": "the best of a secret number of runs",
}


@dataclass
class Reporting:
    run: str = MISSING
    out: str | None = None
    private_metrics: bool = False
    audit: str | None = None  # a folder of scripts.audit
    public_key: str | None = None  # of the holder, for the signature


def main(arguments: list[str]) -> None:
    # Setup
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Reporting), OmegaConf.from_cli(arguments)))
    run = RunDir(Path(settings.run), key="run")
    reject_unless(run.path.name != "release", "run", run.path, "it is a release; give the folder that it is in")
    card = run.release / CARD
    reject_unless(card.is_file(), "run", run.path, f"it has no release/{CARD}: it is no run, not finished, not private, or older")
    document = read_certificate(run.release)
    require(run.finished or not settings.private_metrics, "private_metrics", True, "false, as the run is not evaluated")
    usual = run.internal / "report.html" if settings.private_metrics else run.path / "report.html"
    out = Path(settings.out) if settings.out else usual
    reject_unless(not out.is_dir(), "out", out, "it is a folder; give a file")
    require(settings.audit is None or settings.private_metrics, "audit", settings.audit, "null without private_metrics=true")
    audit = None if settings.audit is None else _read_audit(Path(settings.audit), document["method"])
    inside = run.release.resolve() in (out.resolve(), *out.resolve().parents)
    reject_unless(not inside, "out", out, "a release stays as it is certified; give a place outside it")
    wrong = altered(run.release, document) if "files" in document else []
    reject_unless(not wrong, "run", run.path, f"its release is not the one that is certified: {'; '.join(wrong)}")
    signed = _signed(run.release, settings.public_key)

    # Run
    measured = _measured(run) if settings.private_metrics else None
    measured = measured if audit is None or measured is None else measured + _audit(audit)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, page(card.read_text(), document, run.release, measured, signed))

    # Report
    print(out)
    if settings.private_metrics:
        print("it holds what was measured on real data, and must not be shared as a release may")


def page(card: str, document: dict[str, Any], release: Path, measured: str | None, signed: str) -> str:
    """`card`: README.md of the release; `measured`: HTML of what was measured on real data, where it may be in; `signed`: a
    sentence on the signature."""
    words = without_header(card)
    pictured = PICTURE in words  # a classifier has none
    if pictured:
        picture = base64.b64encode((release / "grid.png").read_bytes()).decode()
        words = words.replace(PICTURE, PICTURE.replace("grid.png", f"data:image/png;base64,{picture}"))
    start, *sections = words.split("\n## ")
    parts = [_html(start)]
    if pictured:
        parts.append(_caption(document.get("classes", [])))
    parts.append(_decision(document, signed))
    for section in sections:
        parts.append(_html(f"## {section}"))
        if section.startswith(PROTECTION) and document["mechanisms"]:
            parts += [_risk(document), _ledger(document["mechanisms"])]
    warning = '<p class="danger">This page holds numbers measured on real data. It must not be shared as the release may.</p>'
    parts.insert(0, "" if measured is None else f'<div id="warning" role="note">{warning}</div>')
    parts.append(f"<h2>How good {'it is' if 'classifier' in document else 'they are'}</h2>{measured or _UNMEASURED}")
    digest = sha256_of(release / CERTIFICATE)
    about = f"Written on {date.today():%d %B %Y}, about the certificate with sha256 <code>{digest}</code>"
    name = escape(title(document))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{name}</title>\n'
        f"<style>{STYLE.read_text()}{OWN_STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n"
        f'<footer class="muted">{about} (id {escape(str(document["id"]))}). {escape(signed)}</footer>\n</body>\n</html>\n'
    )


def _caption(classes: list[str]) -> str:
    """The line below the picture, which says what its rows are."""
    rows = f" From the top, a row for each class: {', '.join(classes)}." if len(classes) > 1 else ""
    return f'<p class="muted">{escape(f"Some of the images, nothing picked.{rows}")}</p>\n'


def _decision(document: dict[str, Any], signed: str) -> str:
    """What the page is for, in a few lines."""
    one = {"image": "image", "user": "person"}[document["unit"]]
    if document["mechanisms"]:
        risk = document["risk"]
        belief = percent(risk["posterior"]["0.5"])
        found = (
            f"ε = {format_epsilon(document['epsilon'])}, δ = {document['delta']:g}, for one {one}. A belief of 50 % that a given "
            f"{one} was in the private data rises to at most {belief}; with a probability of at most "
            f"{risk['posterior_but_for']:g} it rises further."
        )
    else:
        found = "No private image was read: ε = 0."
    caution = f" Caution: {document['caution']}." if "caution" in document else ""
    decide = [
        f"Is this ε small enough for these images? It holds against somebody who knows all but that one {one}. A "
        "convention calls ε up to 1 strong, up to 10 reasonable, and more weak (Ponomareva et al. 2023).",
        "May everybody know what is listed under “What was taken as public”?",
        "Do many images show the same text, as a hospital's name in a corner? That is not private, and may be in the samples.",
        "Are there, or will there be, other releases from the same private images? Their ε add up; nothing here counts them.",
        "Were settings tried on the same private images, and the best kept? That costs more than this ε.",
    ]
    if one == "image":
        decide.insert(1, "Has somebody several of these images? Then that person is protected less than these numbers say.")
    checked = "Every file is the one that the certificate names."
    if "files" not in document:
        checked = "The certificate is of an earlier version and names no files, so they were not checked."
    afterwards = (
        "It is signed afterwards: <code>python -m scripts.sign</code>, with the <code>sha256</code> at the foot of this page."
    )
    afterwards = afterwards if signed == UNSIGNED else ""
    items = "".join(f"<li>{escape(one)}</li>" for one in decide)
    return (
        f"<h2>In short</h2><p>{escape(found + caution)} {checked} {escape(signed)}</p>"
        f"<p>What only you can decide, before <code>release/</code> is shared:</p><ul>{items}</ul>"
        f"<p>Approved by: ______________________ on: ______________ {afterwards}</p>\n"
    )


def _signed(release: Path, public_key: str | None) -> str:
    place = release / SIGNATURE
    if not place.exists():
        require(public_key is None, "public_key", public_key, "null, as the release is not signed")
        return UNSIGNED
    if public_key is None:
        return "It is signed; by whom was not checked."
    right = fits(public_key, place.read_bytes(), (release / CERTIFICATE).read_bytes())
    reject_unless(right, "public_key", public_key, "the signature of the release is not by its owner")
    return f"It is signed by the owner of {Path(public_key).name} (sha256 {sha256_of(Path(public_key))[:16]}…)."


_UNMEASURED = (
    "<p>That is measured on real data, so it is private and not on this page. Where it was measured, whoever holds the data has "
    "it in the run's <code>internal/</code> folder.</p>"
)


def _html(markdown: str) -> str:
    """What is HTML in it, a name of a class for one, stays text."""
    return MarkdownIt("commonmark", {"html": False}).render(markdown)


def _table(caption: str, head: list[str], rows: list[list[str]]) -> str:
    """Cells but for the first of a row are numbers or words alike."""
    heads = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>\n"


def _ledger(mechanisms: list[dict[str, Any]]) -> str:
    head = ["What for", "Times", "What hides a single one", "How much"]
    return _table("Every use of the private images", head, _uses(mechanisms))


def _uses(mechanisms: list[dict[str, Any]]) -> list[list[str]]:
    """Rows. Below the best of several runs stands what a run of each setting uses."""
    rows = []
    for spend in mechanisms:
        numbers = {key: value for key, value in spend.items() if key != "count" and isinstance(value, int | float)}
        told = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in numbers.items())
        rows.append([spend["purpose"], f"{spend['count']:,}", MECHANISMS.get(spend["mechanism"], spend["mechanism"]), told])
        for number, candidate in enumerate(spend.get("candidates", []), 1):
            rows += [[f"setting {number}: {cells[0]}", *cells[1:]] for cells in _uses(candidate)]
    return rows


def _risk(document: dict[str, Any]) -> str:
    found, one = document["risk"], {"image": "image", "user": "person"}[document["unit"]]
    rates = [[percent(float(false)), percent(true)] for false, true in found["true_positive_rate"].items()]
    beliefs = [[percent(float(prior)), percent(after)] for prior, after in found["posterior"].items()]
    curve = TradeOff.of([Spend.from_dict(spend) for spend in document["mechanisms"]], document["delta"])
    return (
        f"<h3>Can somebody tell that one {one} was in it?</h3>"
        + _table("An attacker's best", ["Of those not in it, wrongly taken for in it", "Of those in it, found: at most"], rates)
        + _table("What a belief becomes", ["Before", f"After, at most (but for {found['posterior_but_for']:g})"], beliefs)
        + _figure(curve)
    )


def _read_audit(folder: Path, method: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / "internal" / "audit.json").read_text())
        name, _ = found["method"], found["true_positive_rate"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise unusable("audit", folder, "it holds no audit, or one from before its rates were kept") from error
    reject_unless(name == method, "audit", folder, f"it is of method={name}, and the run is of method={method}")
    return found


def _audit(found: dict[str, Any]) -> str:
    curve = TradeOff.of([Spend.from_dict(spend) for spend in found["mechanisms"]], found["delta"])
    above = "<strong>more than is claimed: do not share the release</strong>" if found["refuted"] else "no more than is claimed"
    told = (
        f"The method was attacked on this program's own code, at ε = {found['claimed_epsilon']:.3g} on "
        f"{escape(found['dataset'])}: {found['correct']:,} of {found['guesses']:,} guesses were right. That shows an ε of at "
        f"least {found['lower_bound']:.2g} ({found['confidence']:.0%} confidence): {above}. An attack that fails proves nothing."
    )
    return (
        f"<h3>What an attack found</h3><p>{told}</p>{_figure(curve, (found['false_positive_rate'], found['true_positive_rate']))}"
    )


def _figure(curve: TradeOff, found: tuple[float, float] | None = None) -> str:
    """The highest rate of true positives at each rate of false ones, beside guessing; both axes from 0 to 100 %.

    `found`: the two rates of an attack that was tried.
    """
    left, side, top = 46, 260, 8
    rates = np.concatenate([np.geomspace(1e-4, 0.05, 40), np.linspace(0.05, 1, 60)])

    def at(x: float, y: float) -> str:
        return f"{left + side * x:.1f},{top + side * (1 - y):.1f}"

    line = " ".join([at(0, 0), *(at(float(x), curve.true_positives(float(x))) for x in rates)])
    ticks = "".join(
        f'<text x="{left + side * share:.0f}" y="{top + side + 16}" text-anchor="middle">{share:.0%}</text>'
        f'<text x="{left - 6}" y="{top + side * (1 - share) + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        for share in (0, 0.5, 1)
    )
    told = "The best that an attacker can do (line) beside guessing (dashes)" + ("" if found is None else " and the attack (dot)")
    frame = f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="var(--line)"/>'
    chance = f'<polyline points="{at(0, 0)} {at(1, 1)}" fill="none" stroke="var(--muted)" stroke-dasharray="4 4"/>'
    best = f'<polyline points="{line}" fill="none" stroke="var(--link)" stroke-width="2"/>'
    below = f'<text x="{left + side / 2}" y="{top + side + 34}" text-anchor="middle">not in it, but taken for in it</text>'
    beside = f'<text transform="translate(12 {top + side / 2}) rotate(-90)" text-anchor="middle">in it, and found</text>'
    size = f"0 0 {left + side + 20} {top + side + 42}"
    x, y = (0.0, 0.0) if found is None else map(float, at(*found).split(","))
    dot = "" if found is None else f'<circle cx="{x}" cy="{y}" r="4" fill="var(--text)"/>'
    svg = f'<svg viewBox="{size}" role="img" aria-label="{told}">{frame}{chance}{best}{dot}{ticks}{below}{beside}</svg>'
    return f"<figure>{svg}<figcaption>{told}.</figcaption></figure>\n"


def _measured(run: RunDir) -> str:
    config, metrics = from_stored(yaml.safe_load(run.config.read_text())), json.loads(run.metrics.read_text())
    later = run.internal / "judged" / "metrics.json"  # by scripts.evaluate
    metrics |= json.loads(later.read_text()) if later.exists() else {}
    rows = beside_references(config, metrics)
    if all(cells[2:] == ["–", "–"] for cells in rows):
        return "<p>Neither distance nor accuracy was measured. <code>python -m scripts.evaluate release=…</code> does.</p>"
    told = "Beside samples of the public model, and the private images themselves, where these are stored; on real test images"
    beside = unbalanced(metrics, config.tested_classifier.value)
    return _table(told, columns(config), rows) + ("" if beside is None else f"<p>{escape(beside)}</p>")


if __name__ == "__main__":
    run_script(main, __doc__)
