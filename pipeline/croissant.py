"""What a release says of itself to programs: croissant.json, in the Croissant format 1.1 of MLCommons.

Made of what README.md is made of. No program reads arrays of an npz by it; it says which files there are, and what is in them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data.samples import SampleSet
from data.shards import sample_files
from disk import sha256_of
from pipeline.card import description
from privacy.risk import format_epsilon

CROISSANT = "croissant.json"
_TERMS = (
    "citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key "
    "md5 parentField path recordSet references regex repeated replace samplingRate separator source subField transform"
)
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}


def croissant(document: dict[str, Any], samples: SampleSet, folder: Path) -> dict[str, Any]:
    """Of the files of samples in `folder`; `document`: the certificate."""
    files = sample_files(folder)
    spent = f"epsilon={format_epsilon(document['epsilon'])}, delta={document['delta']:g}, unit: one {document['unit']}"
    made = f"Made from private images with differential privacy: {spent}. See privacy.json."
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": re.sub("[^A-Za-z0-9_-]+", "-", f"synthetic-{document['dataset']}-{document['method']}"),
        "description": description(document, samples),
        "version": "1.0.0",
        "keywords": ["synthetic", "differential privacy"],
        "rai:dataCollection": f"Synthetic, by {document['method']}; no image was recorded.",
        "rai:personalSensitiveInformation": made if document["mechanisms"] else "Made without any private image.",
        "rai:dataLimitations": "Not for statements about single people, about rare things, or about counts. See README.md.",
        "distribution": [_file(file) for file in files],
        "recordSet": [_classes(document["classes"]), *(_images(file) for file in files)],
    }


def _file(file: Path) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name,
        "description": "An npz of NumPy: images uint8 [N, H, W, C] and labels int64 [N].",
        "contentUrl": file.name,
        "contentSize": f"{file.stat().st_size} B",
        "encodingFormat": "application/zip",
        "sha256": sha256_of(file),
    }


def _classes(names: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [_field("classes", "label", "sc:Integer"), _field("classes", "name", "sc:Text")],
        "data": [{"classes/label": number, "classes/name": name} for number, name in enumerate(names)],
    }


def _images(file: Path) -> dict[str, Any]:
    source = {"source": {"fileObject": {"@id": file.name}, "extract": {"fileProperty": "content"}}}
    named = {"references": {"field": {"@id": "classes/label"}}}
    return {
        "@type": "cr:RecordSet",
        "@id": file.stem,
        "name": file.stem,
        "description": "One record for each row of the arrays `images` and `labels`.",
        "field": [
            {**_field(file.stem, "image", "sc:ImageObject"), **source},
            {**_field(file.stem, "label", "sc:Integer"), **source, **named},
        ],
    }


def _field(record: str, name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{record}/{name}", "name": name, "dataType": kind}
