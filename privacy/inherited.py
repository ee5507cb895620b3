"""What public inputs have spent already: weights or images that a private dataset had a part in are no longer free.

A release's model/ folder holds the certificate of its run, `privacy.json`. Where a setting such as `model.pretrained` names it,
the mechanisms listed there are spends of the new run too, under purposes of their own ("base:<id of that release>.dp_sgd").
The id is random, so a release that two settings name, or that two runs start from, is known to be one and counts once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disk import sha256_of, write_json
from errors import reject_unless, unusable
from privacy.accounting import compose_epsilon
from privacy.mechanisms import Spend, Unit
from privacy.risk import format_epsilon

CERTIFICATE = "privacy.json"
BASE = "base:"
_LEVELS = 3  # release/model/unet/FILE is three folders below the certificate of its release


@dataclass(frozen=True)
class PublicInput:
    """What a setting names as public: a file or folder, and which of its files are in use (none: all, images for one)."""

    key: str  # model.pretrained
    path: Path
    files: Sequence[Path] = ()

    def sha256(self) -> dict[str, str]:
        """Of the files in use, by name below `path` (a single file by its own name)."""
        root = self.path if self.path.is_dir() else self.path.parent
        return {file.relative_to(root).as_posix(): sha256_of(file) for file in self.files}

    def describe(self, sha256: dict[str, str]) -> dict[str, Any]:
        """For a certificate, with its digests: without the place, which is of this machine."""
        return {"setting": self.key, "name": self.path.name, "sha256": sha256}

    @property
    def _around(self) -> list[Path]:
        """The places in use and the folders above them, as they are named and as links lead: a copy, a link to a part and a link
        into a store of files all have their certificate somewhere there."""
        places = [one for place in (self.path, *self.files) for one in (place.absolute(), place.resolve())]
        return list(dict.fromkeys(folder for place in places for folder in (place, *place.parents)[: _LEVELS + 1]))

    def certificates(self) -> list[dict[str, Any]]:
        """Of the runs that released it or parts of it, `mechanisms` and `elsewhere` as Spend; InputError for a damaged one."""
        found = dict.fromkeys(file.resolve() for folder in self._around if (file := folder / CERTIFICATE).is_file())
        return [self._read(file) for file in found]

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            document = json.loads(file.read_bytes())
            for key in ("mechanisms", "elsewhere"):
                document[key] = [Spend.from_dict(spend) for spend in document.get(key, [] if key == "elsewhere" else None)]
            document["epsilon"], document["delta"] = float(document["epsilon"]), float(document["delta"])
            return {"private": False, **document, "id": document.get("id"), "file": file}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            problem = f"its {CERTIFICATE} cannot be read, so what it has spent is not known"
            raise unusable(self.key, self.path, problem) from error

    def require_private(self) -> None:
        """InputError where it was made from private images and is not for release."""
        for folder in {above for place in self._around for above in (place, *place.parents)}:
            if folder.name == "internal" and any((folder / name).exists() for name in ("ledger.jsonl", "noise.key")):
                problem = "it lies under internal/ of a run, which is not for release; give another one"
                raise unusable(self.key, self.path, problem)
        for document in self.certificates():
            if document["private"] is not True:
                reason = document.get("reason", "its certificate gives no reason")
                problem = f"it was made from private images without privacy ({reason}); give another one"
                raise unusable(self.key, self.path, problem)


@dataclass
class Inherited:
    """What the public inputs of a run have spent, and what is assumed of them."""

    spends: list[Spend] = field(default_factory=list)
    elsewhere: list[Spend] = field(default_factory=list)  # spent on other people's images, as the user says: not counted, kept
    datasets: dict[str, str] = field(default_factory=dict)  # by the id of a release: what it was made from
    assumptions: list[str] = field(default_factory=list)
    told: str = ""  # for a refusal: which settings name them, and what they have spent
    delta: float = 0.0  # the largest of their certificates
    unit: Unit | None = None  # that all of them protect

    @classmethod
    def of(
        cls, inputs: Sequence[PublicInput], other_data: bool = False, dataset: str = "", unit: Unit | None = None
    ) -> Inherited:
        """`other_data`: the user says that models were made from other private images than those of this run's `dataset`.

        They cost it nothing then; but what they themselves were made from counts where it bears the name of `dataset`, whatever
        was said of it before. InputError for an input that is not private, whose certificate is damaged, or that protects
        another unit than this run does, or than another input (`unit` None): to a user-level mechanism a user with an image less
        is another user, and an image-level one says nothing of users.
        """
        found = cls()
        counted: dict[str, Spend] = {}
        aside: dict[str, Spend] = {}
        told: dict[str, None] = {}
        for one in inputs:
            one.require_private()
            for document in one.certificates():
                flagged = other_data and one.key.startswith("model.")
                own = document["id"] or _fingerprint(document["file"])
                datasets = {**document.get("datasets", {}), own: str(document.get("dataset", "private images"))}
                spends = [_renamed(spend, own) for spend in (*document["mechanisms"], *document["elsewhere"])]
                for spend in spends:
                    source = spend.purpose.removeprefix(BASE).split(".")[0]
                    direct = source == own or document["id"] is None  # without an id: public training made it, and no run
                    ours = not flagged or (not direct and datasets.get(source) == dataset)
                    kept = counted if ours else aside
                    if kept.setdefault(spend.purpose, spend) != spend:
                        problem = f"its {CERTIFICATE} contradicts another one at {spend.purpose}"
                        raise unusable(one.key, one.path, problem)
                if not spends:
                    continue
                protects = Unit(document.get("unit", Unit.image.value))
                other = unit or found.unit or protects
                problem = f"it protects single {protects.plural}, and what is made of it is to protect {other.plural}"
                reject_unless(protects is other, one.key, one.path, problem)
                found.unit = protects
                found.datasets |= datasets
                found.delta = max(found.delta, document["delta"])
                of = ", ".join(dict.fromkeys(datasets.values()))
                spent = f"spent epsilon={format_epsilon(document['epsilon'])} at delta={document['delta']:g} on {of}"
                if flagged:
                    assumption = f"{one.key} ({one.path.name}, {spent}) was made from images of other people than these"
                    if document.get("dataset") == dataset:
                        assumption += ", though both datasets are called that"
                    found.assumptions.append(assumption)
                else:
                    told[f"{one.key}={one.path} {spent}"] = None
                    found.assumptions += [f"of {one.key}: {text}" for text in document.get("public_by_assumption", [])]
        found.spends, found.told = list(counted.values()), "; ".join(told)
        found.elsewhere = [spend for purpose, spend in aside.items() if purpose not in counted]
        found.assumptions = list(dict.fromkeys(found.assumptions))
        return found

    def origins(self) -> dict[str, Any]:
        """For a certificate: what whoever starts from that release has to know of what it inherited."""
        aside = [spend.to_dict() for spend in self.elsewhere]
        return {**({"datasets": self.datasets} if self.datasets else {}), **({"elsewhere": aside} if aside else {})}

    def certificate(self) -> dict[str, Any]:
        """For what is made from these inputs without any private image: it has spent what they have."""
        epsilon = compose_epsilon(self.spends, self.delta)
        return {
            "private": True,
            "epsilon": epsilon if math.isfinite(epsilon) else "inf",
            "delta": self.delta,
            **({"unit": self.unit.value} if self.unit else {}),
            "mechanisms": [spend.to_dict() for spend in self.spends],
            "public_by_assumption": self.assumptions,
            **self.origins(),
        }


def _renamed(spend: Spend, own: str) -> Spend:
    """Under a purpose that names the release that it was spent for."""
    if spend.purpose.startswith(BASE):
        return spend
    return Spend(f"{BASE}{own}.{spend.purpose}", spend.mechanism, spend.count)


def carry_certificate(document: dict[str, Any], model: Path) -> None:
    """Beside the weights, in the folder of the model and in that of its U-Net: a copy of either says what it has spent."""
    for folder in (model, model / "unet"):
        if folder.is_dir():
            write_json(folder / CERTIFICATE, document)


def _fingerprint(certificate: Path) -> str:
    """For a release from before certificates had ids. A copy elsewhere counts as another release, which costs more, not less."""
    return hashlib.sha256(bytes(certificate) + certificate.read_bytes()).hexdigest()[:16]
