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

from disk import write_json
from errors import InputError, shown
from privacy.accounting import compose_epsilon
from privacy.mechanisms import Spend

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
        return {file.relative_to(root).as_posix(): _sha256(file) for file in self.files}

    def describe(self) -> dict[str, Any]:
        """For a certificate: without the place, which is of this machine."""
        return {"setting": self.key, "name": self.path.name, "sha256": self.sha256()}

    def certificate(self) -> dict[str, Any] | None:
        """Of the run that released it, `mechanisms` as Spend; None where it carries none, InputError where it is damaged."""
        around = (self.path.resolve(), *self.path.resolve().parents)[: _LEVELS + 1]
        found = next((folder / CERTIFICATE for folder in around if (folder / CERTIFICATE).is_file()), None)
        if found is None:
            return None
        try:
            document = json.loads(found.read_bytes())
            document["mechanisms"] = [Spend.from_dict(spend) for spend in document["mechanisms"]]
            document["epsilon"], document["delta"] = float(document["epsilon"]), float(document["delta"])
            return {"id": _fingerprint(found), "private": False, **document}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._named}: its {CERTIFICATE} cannot be read, so what it has spent is not known") from error

    def require_private(self) -> None:
        """InputError where it was made from private images and is not for release."""
        for folder in self.path.resolve().parents:
            if folder.name == "internal" and any((folder / name).exists() for name in ("ledger.jsonl", "noise.key")):
                raise InputError(f"{self._named}: lies under internal/ of a run, which is not for release; give another one")
        document = self.certificate()
        if document and document["private"] is not True:
            reason = document.get("reason", "its certificate gives no reason")
            raise InputError(f"{self._named}: was made from private images without privacy ({reason}); give another one")

    @property
    def _named(self) -> str:
        return f"{self.key}={shown(self.path)}"


@dataclass
class Inherited:
    """What the public inputs of a run have spent, and what is assumed of them."""

    spends: list[Spend] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)
    told: str = ""  # for a refusal: which settings name them, and what they have spent
    delta: float = 0.0  # the largest of their certificates

    @classmethod
    def of(cls, inputs: Sequence[PublicInput], other_data: bool = False) -> Inherited:
        """`other_data`: the user says that models were made from other private images than this run's: they cost it nothing.

        InputError for an input that is not private, or whose certificate is damaged.
        """
        spends: dict[str, Spend] = {}
        assumptions, told, delta = [], [], 0.0
        for one in inputs:
            one.require_private()
            document = one.certificate()
            if document is None or not document["mechanisms"]:
                continue
            of = document.get("dataset", "private images")
            said = f"spent epsilon={document['epsilon']:.4g} at delta={document['delta']:g} on {of}"
            if other_data and one.key.startswith("model."):
                assumptions.append(f"{one.key} ({one.path.name}, {said}) was made from images of other people than these")
                continue
            told.append(f"{one.key}={one.path} {said}")
            delta = max(delta, document["delta"])
            assumptions += [f"of {one.key}: {text}" for text in document.get("public_by_assumption", [])]
            for spend in document["mechanisms"]:
                purpose = spend.purpose if spend.purpose.startswith(BASE) else f"{BASE}{document['id']}.{spend.purpose}"
                inherited = Spend(purpose, spend.mechanism, spend.count)
                if spends.setdefault(purpose, inherited) != inherited:
                    raise InputError(f"{one.key}={one.path}: its {CERTIFICATE} contradicts itself or another one at {purpose}")
        return cls(list(spends.values()), list(dict.fromkeys(assumptions)), "; ".join(told), delta)

    def certificate(self) -> dict[str, Any]:
        """For what is made from these inputs without any private image: it has spent what they have."""
        epsilon = compose_epsilon(self.spends, self.delta)
        listed = [spend.to_dict() for spend in self.spends]
        return {
            "private": True,
            "epsilon": epsilon if math.isfinite(epsilon) else "inf",
            "delta": self.delta,
            "mechanisms": listed,
            "public_by_assumption": self.assumptions,
        }


def carry_certificate(document: dict[str, Any], model: Path) -> None:
    """Beside the weights, in the folder of the model and in that of its U-Net: a copy of either says what it has spent."""
    for folder in (model, model / "unet"):
        if folder.is_dir():
            write_json(folder / CERTIFICATE, document)


def _fingerprint(certificate: Path) -> str:
    """For a release from before certificates had ids. A copy elsewhere counts as another release, which costs more, not less."""
    return hashlib.sha256(bytes(certificate) + certificate.read_bytes()).hexdigest()[:16]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
