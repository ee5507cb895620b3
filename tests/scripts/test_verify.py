"""A release is what its certificate says: every kind of change is found, and what cannot be found is said."""

from __future__ import annotations

import json
import math
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conf.help import run_script
from data.samples import SampleSet
from privacy.accounting import Accountant
from privacy.ledger import Ledger, certificate
from privacy.mechanisms import BestOf, DeclaredPublic, DiscreteGaussian, Gaussian, SampledGaussian, Spend, Unit
from privacy.selection import TruncatedNegativeBinomial
from scripts import verify
from store.identity import digest
from store.seal import seal
from tests.command import PUBLIC_ONLY, ROOT, SMOKE, call, released, typed
from tests.keys import key_pair
from tests.rejects import assert_line, rejects

SPENDS = [Spend("moments", Gaussian(3.0)), Spend("pe.votes", DiscreteGaussian(2.0), 2)]
DP_SGD = [Spend("dp_sgd", SampledGaussian(1.1, 0.05), 40)]
SIGMA = "mechanisms.1.noise_multiplier"


def make(folder: Path, spends: list[Spend], accountant: Accountant = Accountant.pld, key: str | None = None, **more: Any) -> Path:
    """A release of ten images."""
    release = folder / "release"
    release.mkdir()
    SampleSet(np.zeros((10, 4, 4, 1), np.uint8), np.arange(10) % 2, 2).save(release / "samples.npz")
    (release / "grid.png").write_bytes(b"picture")
    ledger = Ledger(folder / "ledger.jsonl", spends, 1e-5, accountant)
    for spend in spends:
        ledger.spend(spend.purpose, spend.mechanism, spend.count)
    facts: dict[str, Any] = {"num_samples": 10, "classes": ["a", "b"], "private_images": 500, "public_inputs": [], **more}
    document = certificate(
        ledger, identity="ab12", size=500, unit=Unit.image, noise_seed=None, assumptions=["images: 500"], provenance=facts
    )
    seal(release, document, key)
    return release


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("honest"), SPENDS)


@pytest.fixture
def release(honest, tmp_path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "copy"))


def status(capsys, release: Path, *more: str) -> tuple[int, str]:
    capsys.readouterr()
    try:
        verify.main([f"release={release}", *more])
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    return code, capsys.readouterr().out


def failures(out: str) -> list[str]:
    return [line.removeprefix("FAILED").strip() for line in out.splitlines() if line.startswith("FAILED")]


def rewrite(release: Path, change: Callable[[dict], Any]) -> None:
    place = release / "privacy.json"
    document = json.loads(place.read_text())
    change(document)
    place.write_text(json.dumps(document))


def to(path: str, value: Any) -> Callable[[dict], Any]:
    """A change of one value."""

    def change(document: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for part in parents:
            document = document[part]
        document[last] = value

    return change


# What is honest


@pytest.mark.parametrize("accountant", list(Accountant), ids=lambda accountant: accountant.value)
def test_a_certificate_holds_by_whichever_accountant_it_is(accountant, tmp_path, capsys):
    code, out = status(capsys, make(tmp_path, DP_SGD, accountant))
    assert (code, failures(out)) == (0, [])
    assert f"certified by it: {json.loads((tmp_path / 'release/privacy.json').read_text())['epsilon']:.6g}" in out
    for told in ("by pld", "by prv", "by rdp", "by a second implementation: between"):
        assert told in out


@pytest.mark.parametrize("settings", [PUBLIC_ONLY, [*SMOKE, "eval=none"]], ids=["public_only", "pe"])
def test_the_release_of_a_run_holds(settings, here, capsys):
    folder = released(call(*settings), here)
    code, out = status(capsys, folder)
    assert (code, failures(out)) == (0, [])
    image = folder / "grid.png"
    image.write_bytes(image.read_bytes() + b" ")
    assert failures(status(capsys, folder)[1]) == ["files: grid.png was changed"]


def test_what_nobody_can_check_is_said(honest, capsys):
    out = status(capsys, honest)[1]
    assert "- Public knowledge: images: 500" in out
    assert "not found without a signature" in out
    assert "unknown  signature: none" in out


STORED = ["pe", "dp_moments", "dp_diffusion", "dp_loda"]


@pytest.mark.parametrize("method", STORED)
def test_what_stored_certificates_claim_holds_though_they_name_no_files(method, tmp_path, capsys):
    with zipfile.ZipFile(ROOT / "docs" / "digits" / "runs.zip") as stored:
        names = sorted(name for name in stored.namelist() if name.endswith("release/privacy.json"))
        documents = [json.loads(stored.read(name)) for name in names]
    document = next(document for document in documents if document["method"] == method and document["epsilon"] < 2)
    assert [finding.told for finding in verify.check_claims(document) if finding.holds is False] == []
    (tmp_path / "privacy.json").write_text(json.dumps(document))
    code, out = status(capsys, tmp_path)
    assert (code, len(failures(out))) == (1, 1)
    assert "names no files" in out


# Tampering


def cut(folder: Path) -> None:
    whole = (folder / "samples.npz").read_bytes()
    (folder / "samples.npz").write_bytes(whole[: len(whole) // 2])


def other_image(release: Path) -> None:
    samples = SampleSet.load(release / "samples.npz")
    samples.images[3, 0, 0] = 1
    samples.save(release / "samples.npz")


def one_image_less(release: Path) -> None:
    """And the certificate made to fit the file."""
    samples = SampleSet.load(release / "samples.npz")
    samples[slice(0, 9)].save(release / "samples.npz")
    seal(release, json.loads((release / "privacy.json").read_text()))


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a changed image": (other_image, "samples.npz was changed"),
    "another picture": (lambda folder: (folder / "grid.png").write_bytes(b"other"), "grid.png was changed"),
    "a file less": (lambda folder: (folder / "grid.png").unlink(), "grid.png is missing"),
    "a file more": (lambda folder: (folder / "real.png").write_bytes(b"image"), "real.png was added"),
    "samples that are cut off": (cut, "cannot be read"),
    "no readable samples": (lambda folder: (folder / "samples.npz").write_bytes(b"PK"), "cannot be read"),
    "fewer images than certified": (one_image_less, "samples: 9; certified: 10"),
}
CLAIMS: dict[str, Callable[[dict], Any]] = {
    "a dropped mechanism": lambda document: document["mechanisms"].pop(0),
    "no mechanism": to("mechanisms", []),
    "fewer uses": to("mechanisms.1.count", 1),
    "no use": to("mechanisms.1.count", 0),
    "a larger sigma": to(SIGMA, 2.01),
    "a smaller sigma": to(SIGMA, 1.99),
    "another mechanism": to("mechanisms.1.mechanism", "gaussian"),
    "an unknown mechanism": to("mechanisms.1.mechanism", "magic"),
    "a sigma that is no number": to(SIGMA, "2"),
    "no noise": to(SIGMA, 0),
    "negative noise": to(SIGMA, -2.0),
    "endless noise": to(SIGMA, math.inf),
    "noise that is no number": to(SIGMA, math.nan),
    "half a use": to("mechanisms.1.count", 1.5),
    "mechanisms that are none": to("mechanisms", "none"),
    "a mechanism that is none": to("mechanisms.0", 1),
    "an epsilon that is none": to("epsilon", None),
    "an epsilon that is no number": to("epsilon", math.nan),
    "a public statistic": to("mechanisms.0", {"purpose": "moments", "count": 1, "mechanism": "declared_public"}),
    "a smaller epsilon": lambda document: document.update(epsilon=0.99 * document["epsilon"]),
    "a larger delta": to("delta", 1.1e-5),
    "a smaller delta": to("delta", 1e-6),
    "delta 0": to("delta", 0),
    "another accountant": to("accountant", "rdp"),
    "another unit": to("unit", "user"),
    "another neighbouring relation": to("neighbouring", "replace one image"),
    "more images, and no caution": to("private_images", 50_000),
    "a smaller risk": to("risk.advantage", 0.01),
    "a risk less": lambda document: document["risk"]["posterior"].pop("0.5"),
    "no files named": lambda document: document.pop("files"),
    "not private": to("private", False),
    "without delta": lambda document: document.pop("delta"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_change_of_files_is_found(kind, release, capsys):
    change, told = FILES[kind]
    change(release)
    code, out = status(capsys, release)
    assert code == 1
    assert any(told in line for line in failures(out)), out


@pytest.mark.parametrize("kind", CLAIMS)
def test_every_change_of_what_is_claimed_is_found(kind, release, capsys):
    rewrite(release, CLAIMS[kind])
    code, out = status(capsys, release)
    assert code == 1, out
    assert failures(out)


# The best of several runs

RUNS = TruncatedNegativeBinomial(1, 0.2)
SCORE = DiscreteGaussian(5.0)
BEST = Spend("best_of", BestOf(RUNS, tuple((Spend("moments", Gaussian(sigma)), Spend("score", SCORE)) for sigma in (3.0, 4.0))))
TOLD = {
    "candidates": [{"method.cells": 1}, {"method.cells": 2}],
    "number_of_candidates": 2,
    **RUNS.to_dict(),
    "expected_runs": RUNS.mean,
    "score": "accuracy on private images of cnn, trained on the samples",
    "score_mechanism": SCORE.to_dict(),
    "chosen": {"method.cells": 2},
    "score_of_chosen": 0.9,
}
CHOICE = "mechanisms.0.candidates"


@pytest.fixture(scope="module")
def selected(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("selected"), [BEST], Accountant.rdp, selection=TOLD)


def both(path: str, value: Any) -> Callable[[dict], Any]:
    """In what is told of the choice, and in what was paid for it."""

    def change(document: Any) -> None:
        to(f"mechanisms.0.{path}", value)(document)
        to(f"selection.{path}", value)(document)

    return change


def no_score_at_all(document: Any) -> None:
    """As if it had been on public images."""
    for spends in document["mechanisms"][0]["candidates"]:
        spends.pop()
    document["selection"] |= {"score_mechanism": None, "score": TOLD["score"].replace("private", "public")}  # type: ignore[attr-defined]


def hidden(document: Any) -> None:
    document["mechanisms"][0]["purpose"] = "base:0123.best_of"
    document.pop("selection")


SELECTIONS: dict[str, Callable[[dict], Any]] = {
    "another eta": to("mechanisms.0.eta", 0.0),
    "another eta that is told": to("selection.eta", 0.0),
    "another eta in both": both("eta", 0.5),
    "an eta that is none": both("eta", -1.0),
    "another gamma": to("mechanisms.0.gamma", 0.3),
    "another gamma in both": both("gamma", 0.3),
    "a gamma that is none": both("gamma", 1.0),
    "another distribution": both("distribution", "poisson"),
    "fewer runs expected": to("selection.expected_runs", 2.0),
    "another number": to("selection.number_of_candidates", 1),
    "a candidate less": lambda document: document["selection"]["candidates"].pop(0),
    "a candidate that was not paid for": lambda document: document["mechanisms"][0]["candidates"].pop(1),
    "no candidates": to(CHOICE, []),
    "a candidate that spends nothing": to(f"{CHOICE}.1", []),
    "more noise in a candidate": to(f"{CHOICE}.0.0.noise_multiplier", 3.5),
    "endless noise in a candidate": to(f"{CHOICE}.0.0.noise_multiplier", math.inf),
    "a dropped score": lambda document: document["mechanisms"][0]["candidates"][0].pop(),
    "a score that is not told": to("selection.score_mechanism", None),
    "no score at all": no_score_at_all,
    "more noise on the score": to("selection.score_mechanism.noise_multiplier", 9.0),
    "a choice that was no candidate": to("selection.chosen", {"method.cells": 8}),
    "a choice that is not told": lambda document: document.pop("selection"),
    "a choice that is not paid for": to("mechanisms", [Spend("moments", Gaussian(3.0)).to_dict()]),
    "two choices": to("mechanisms.0.count", 2),
    "one candidate twice": to("selection.candidates", [{"method.cells": 2}, {"method.cells": 2}]),
    "a candidate that is only declared": to(f"{CHOICE}.1", [Spend("classes", DeclaredPublic()).to_dict()]),
    "a choice that passes for another release's": hidden,
    "a smaller epsilon": lambda document: document.update(epsilon=0.99 * document["epsilon"]),
    "another accountant": to("accountant", "prv"),
    "a risk of another accountant": to("risk.accountant", "pld"),
}


def test_a_choice_that_was_paid_for_holds(selected, capsys):
    code, out = status(capsys, selected)
    assert (code, failures(out)) == (0, [])
    assert "of 2 candidates, all listed" in out
    assert "No choice but those that are listed" in out


@pytest.mark.parametrize("kind", SELECTIONS)
def test_every_change_of_a_choice_is_found(kind, selected, tmp_path, capsys):
    release = Path(shutil.copytree(selected, tmp_path / "copy"))
    rewrite(release, SELECTIONS[kind])
    code, out = status(capsys, release)
    assert code == 1, out
    assert failures(out)


# Signatures


def forged(release: Path) -> None:
    """Another image, in a certificate that fits: no digest tells."""
    other_image(release)
    seal(release, json.loads((release / "privacy.json").read_text()))


def test_only_a_signature_finds_who_changes_files_and_certificate_together(tmp_path, capsys):
    private, public = key_pair(tmp_path)
    release = make(tmp_path, SPENDS, key=private)
    code, out = status(capsys, release, f"public_key={public}")
    assert (code, failures(out)) == (0, [])
    assert "not found without a signature" not in out
    assert failures(status(capsys, release, f"public_key={key_pair(tmp_path, 'other')[1]}")[1])
    forged(release)
    assert status(capsys, release)[0] == 0
    code, out = status(capsys, release, f"public_key={public}")
    assert (code, failures(out)) == (1, ["signature: not of this certificate, by the owner of holder.pem"])
    (release / "privacy.json.sig").unlink()
    assert failures(status(capsys, release, f"public_key={public}")[1]) == ["signature: none"]


def test_a_run_signs_and_neither_its_name_nor_its_release_knows_the_key(here, capsys):
    private, public = key_pair(here, "our_own_key")
    signed = [*PUBLIC_ONLY, f"privacy.signing_key={private}"]
    assert digest(typed(*signed)) == digest(typed(*PUBLIC_ONLY))
    folder = released(call(*signed), here)
    assert status(capsys, folder, f"public_key={public}")[0] == 0
    for file in folder.rglob("*"):
        assert b"our_own_key" not in file.read_bytes()


def test_a_key_that_is_none_is_one_line(here):
    result = call(*PUBLIC_ONLY, "privacy.signing_key=nowhere")
    assert result.code == 2
    assert_line(result.err, "privacy.signing_key=nowhere")
    assert not (here / "run").exists()


# Mistakes


@pytest.mark.parametrize("content", [None, "no JSON", "[1]"])
def test_what_is_no_release_is_refused(content, tmp_path):
    if content is not None:
        (tmp_path / "privacy.json").write_text(content)
    with rejects("release", tmp_path):
        verify.main([f"release={tmp_path}"])


def test_a_mistake_is_one_line_and_exit_status_2(monkeypatch, capsys):
    for arguments, key in (["release=nowhere"], "release=nowhere"), (["relase=x"], "relase"), ([], "release"):
        monkeypatch.setattr("sys.argv", ["verify", *arguments])
        with pytest.raises(SystemExit) as end:
            run_script(verify.main)
        assert end.value.code == 2
        assert_line(capsys.readouterr().err, key)
