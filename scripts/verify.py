"""Whether a release is what its certificate says: its files, and the epsilon that follows from the mechanisms listed.

    python -m scripts.verify release=runs/…/release
    python -m scripts.verify release=… public_key=holder.pem      # and whether the holder of that key signed the certificate

It reads the release alone, trains nothing and opens no private image. Exit status 0 where all that can be checked is right, 1
where something is not, and it says which assumptions nobody can check from a release. Digests show that files were changed by
somebody who did not change the certificate; only a signature shows that nobody changed both.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from audit.losses import epsilon_bounds
from conf.help import run_script
from data.samples import SampleFileError, read_labels
from data.shards import sample_files
from errors import InputError, reject_unless, unusable
from models.classifiers.released import ReleasedClassifier
from pipeline.selection import SCORE
from privacy.accounting import Accountant, compose_epsilon, versions
from privacy.config import caution
from privacy.inherited import BASE, CERTIFICATE
from privacy.mechanisms import BestOf, DeclaredPublic, Spend, Unit
from privacy.risk import risk
from privacy.signing import SIGNATURE, fits
from store.seal import altered

SAME, SIMILAR = 1e-6, 1e-3  # relative: of two computations by the same versions of the accounting, and by others


@dataclass
class Verifying:
    release: str = MISSING
    public_key: str | None = None


@dataclass(frozen=True)
class Finding:
    holds: bool | None  # None: cannot be told here
    told: str

    def __str__(self) -> str:
        return f"{ {True: 'ok', False: 'FAILED', None: 'unknown'}[self.holds]:<8} {self.told}"


def main(arguments: list[str]) -> None:
    # Setup
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Verifying), OmegaConf.from_cli(arguments)))
    folder = Path(settings.release)
    document = read_certificate(folder)

    # Run
    findings = [*check_files(folder, document), *_signature(folder, settings.public_key), *check_claims(document)]

    # Report
    for finding in findings:
        print(finding)
    print("\nWhat nobody can check from a release, and is assumed:")
    for assumption in _assumed(document, signed=settings.public_key is not None):
        print(f"- {assumption}")
    wrong = failed(findings)
    ends = f"{len(wrong)} of {len(findings)} checks failed: {'; '.join(wrong)}" if wrong else "all that can be checked is right"
    print(f"\n{folder}: {ends}")
    if wrong:
        raise SystemExit(1)


def failed(findings: Iterable[Finding]) -> list[str]:
    """The line of every check that failed."""
    return [finding.told for finding in findings if finding.holds is False]


def read_certificate(folder: Path) -> dict[str, Any]:
    """InputError where there is none that can be read."""
    place = folder / CERTIFICATE
    reject_unless(place.is_file(), "release", folder, f"it is no folder with a {CERTIFICATE}")
    try:
        document = json.loads(place.read_bytes())
    except ValueError as error:
        raise unusable("release", folder, f"its {CERTIFICATE} is no JSON") from error
    whole = isinstance(document, dict) and isinstance(document.get("files", {}), dict)
    reject_unless(whole, "release", folder, f"its {CERTIFICATE} is no certificate")
    return document


def check_files(folder: Path, document: dict[str, Any]) -> Iterator[Finding]:
    """The digests, and what the certificate says of the samples."""
    if not isinstance(document.get("files"), dict):
        yield Finding(False, "the certificate names no files: it is a copy beside a model, or of an earlier version")
        return
    wrong = altered(folder, document)
    for change in wrong:
        yield Finding(False, f"files: {change}")
    if not wrong:
        yield Finding(True, f"files: the {len(document['files'])} that the certificate names, byte for byte, and no others")
    if "classifier" in document:
        yield _classifier(folder, document)
    if files := sample_files(folder):
        try:
            rows = sum(len(read_labels(file)) for file in files)
        except SampleFileError as error:
            yield Finding(False, f"files: the samples cannot be read ({error})")
            return
        yield Finding(rows == document.get("num_samples"), f"samples: {rows:,}; certified: {document.get('num_samples')}")


def _classifier(folder: Path, document: dict[str, Any]) -> Finding:
    try:
        found = ReleasedClassifier.load(folder)
    except InputError as error:
        return Finding(False, f"files: {error}")
    same = (found.name.value, found.classes) == (document["classifier"], document["classes"])
    return Finding(same, f"classifier: {found.name.value} of {', '.join(found.classes)}")


def _signature(folder: Path, public_key: str | None) -> Iterator[Finding]:
    place, there = folder / SIGNATURE, (folder / SIGNATURE).is_file()
    if public_key is None:
        told = "there, but not checked without public_key=FILE" if there else "none"
        yield Finding(None, f"signature: {told}")
    elif not there:
        yield Finding(False, "signature: none")
    else:
        right = fits(public_key, place.read_bytes(), (folder / CERTIFICATE).read_bytes())
        yield Finding(right, f"signature: {'' if right else 'not '}of this certificate, by the owner of {Path(public_key).name}")


def check_claims(document: dict[str, Any]) -> Iterator[Finding]:
    """What follows from the mechanisms that a certificate lists."""
    yield Finding(document.get("private") is True, f"private: {document.get('reason', document.get('private'))}")
    try:
        spends = [_spend(values) for values in document["mechanisms"]]
        stated, delta, accountant = float(document["epsilon"]), float(document["delta"]), Accountant(document["accountant"])
        unit = Unit(document.get("unit", "image"))  # the only one there was
        if not 0 < delta < 1:
            raise ValueError(f"delta={delta:g}")
        yield from _selection(document, spends)
        yield from _epsilon(spends, stated, delta, accountant, _tolerance(document))
        if "unit" in document:
            yield from _unit(document, unit, delta)
        else:
            yield Finding(None, "unit: not in certificates of this version, which are about single images")
        found = document.get("risk")
        if found is None:
            yield Finding(None, "risk: not in certificates of this version")
        else:
            yield Finding(_alike(found, risk(spends, delta), _tolerance(document)), "risk: as it follows from the mechanisms")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        yield Finding(False, f"the certificate is not whole: {type(error).__name__}: {error}")


def _spend(values: dict[str, Any]) -> Spend:
    """ValueError for numbers that no mechanism has."""
    spend = Spend.from_dict(values)
    if isinstance(spend.mechanism, BestOf):  # whose distribution refuses impossible numbers itself
        numbers: list[float] = []
        within = [_spend(one) for candidate in values["candidates"] for one in candidate]
        spending = [any(not isinstance(one.mechanism, DeclaredPublic) for one in of) for of in spend.mechanism.candidates]
        if not (within and all(spending)):
            raise ValueError(f"{spend.purpose} has no candidates, or one that spends nothing")
    else:
        numbers = list(vars(spend.mechanism).values())
    if not (isinstance(spend.count, int) and spend.count >= 1 and all(0 < x < math.inf for x in numbers)):
        raise ValueError(f"{spend} is no use of a mechanism")
    return spend


def _selection(document: dict[str, Any], spends: list[Spend]) -> Iterator[Finding]:
    """Of the best of several runs: what the certificate says of the choice is what was spent."""
    own = [spend for spend in spends if isinstance(spend.mechanism, BestOf) and not spend.purpose.startswith(BASE)]
    told, known = document.get("selection"), document.get("datasets", {})
    for spend in spends:
        if isinstance(spend.mechanism, BestOf) and spend not in own:
            source = spend.purpose.removeprefix(BASE).split(".")[0]
            yield Finding(source in known, f"selection: of {spend.purpose}, an input that the certificate lists under datasets")
    if told is None and not own:
        return
    if told is None or [spend.count for spend in own] != [1]:
        yield Finding(False, "selection: it is told of or paid for, and not both once")
        return
    best = own[0].mechanism
    assert isinstance(best, BestOf)
    runs, number = best.runs.to_dict(), len(best.candidates)
    yield Finding(
        {key: told.get(key) for key in runs} == runs and math.isclose(told["expected_runs"], best.runs.mean, rel_tol=SAME),
        f"selection: the number of runs is {runs}, {best.runs.mean:.4g} expected",
    )
    distinct = len({json.dumps(one, sort_keys=True) for one in told["candidates"]})
    counts = {told["number_of_candidates"], len(told["candidates"]), distinct, number}
    listed = len(counts) == 1 and told["chosen"] in told["candidates"]
    yield Finding(listed, f"selection: of {number} candidates, all listed; chosen: {told['chosen']}")
    scores = [[spend.mechanism.to_dict() for spend in spends if spend.purpose == SCORE] for spends in best.candidates]
    stated = [] if told["score_mechanism"] is None else [told["score_mechanism"]]
    on = "public" if told["score_mechanism"] is None else "private"
    right = all(score == stated for score in scores) and f"on {on} images" in told["score"]
    yield Finding(right, f"selection: {told['score']}: {told['score_mechanism'] or 'no private image is read'}")


def _epsilon(spends: list[Spend], stated: float, delta: float, accountant: Accountant, tolerance: float) -> Iterator[Finding]:
    """By each accountant, and by a second implementation, whose bounds all of them must respect."""
    bounds = epsilon_bounds(spends, delta)
    for one in Accountant:
        try:
            epsilon = compose_epsilon(spends, delta, one)
        except InputError as error:
            why = str(error).partition("cannot be used: ")[2].partition(";")[0].removesuffix(".")  # not what a run could set
            told = str(error) if one is accountant else f"not computed: {why}"
            yield Finding(False if one is accountant else None, f"epsilon by {one.value}: {told}")
            continue
        told = f"epsilon by {one.value}: {epsilon:.6g}"
        above = bounds is None or epsilon >= bounds[0]
        if one is accountant:
            right = math.isclose(epsilon, stated, rel_tol=tolerance, abs_tol=1e-9)
            yield Finding(right and above, f"{told}; certified by it: {stated:.6g}")
        else:
            larger = " (another upper bound; ε is the smaller one)" if epsilon > stated * (1 + tolerance) else ""
            yield Finding(above, f"{told}{larger}")
    if bounds is None:
        yield Finding(None, "epsilon by a second implementation: delta or losses are out of its reach")
    else:
        right = stated >= bounds[0] and (accountant is not Accountant.pld or stated <= bounds[1] * (1 + tolerance) + 1e-9)
        yield Finding(right, f"epsilon by a second implementation: between {bounds[0]:.6g} and {bounds[1]:.6g}")


def _unit(document: dict[str, Any], unit: Unit, delta: float) -> Iterator[Finding]:
    yield Finding(document["neighbouring"] == unit.neighbouring, f"unit: {unit.value}; {document['neighbouring']}")
    size = document["private_images" if unit is Unit.image else "private_users"]
    warning = caution(delta, size, unit)
    yield Finding(document.get("caution") == warning, f"delta: {warning or f'{delta:g} is small for {size:,} {unit.plural}'}")


def _tolerance(document: dict[str, Any]) -> float:
    return SAME if document.get("accounting") == versions() else SIMILAR


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key], tolerance) for key in one)
    if isinstance(one, float | int) and isinstance(other, float | int):
        return math.isclose(one, other, rel_tol=tolerance, abs_tol=1e-12)
    return one == other


def _assumed(document: dict[str, Any], signed: bool) -> Iterator[str]:
    if not signed:
        yield (
            "This certificate is as the holder wrote it. Whoever changes it, and the files so that they fit it, is not found "
            "without a signature and the holder's public key."
        )
    yield (
        "The program did what is listed, on the images that are named, and its noise is secret (scripts.audit attacks most "
        "methods)."
    )
    if "exported" in document:
        source = document["exported"].get("of_certificate") if isinstance(document["exported"], dict) else None
        yield f"These images are an export: those of the release whose certificate has the sha256 {source}."
    listed = '"best_of"' in json.dumps(document.get("mechanisms"))  # which may be anything
    but = "but those that are listed " if listed else ""
    yield f"No choice {but}was made by results on the private images, and there is no other release from them."
    for one in document.get("public_inputs", []):
        yield f"{one['name']} ({one['setting']}) holds nothing of the private images but what is listed."
    yield from (f"Public knowledge: {assumption}" for assumption in document.get("public_by_assumption", []))


if __name__ == "__main__":
    run_script(main, __doc__)
