"""What a release says of itself: README.md, a card in Hugging Face's form, of a dataset or of a classifier.

It is made of the certificate, of public settings and of what is released alone, so nothing in it is private.
"""

from __future__ import annotations

import math
from typing import Any

import yaml

from data.samples import SampleSet
from method import Made
from models.classifiers.released import ReleasedClassifier
from privacy.mechanisms import Unit
from privacy.risk import format_epsilon, in_words, rounded_up

CARD = "README.md"
LICENCE = "license: other  # for the holder of the private data to choose: scripts.export license=… names it\n"
PROTECTION = "What is protected, and how well"
USE = "How to read and check them"
PICTURE = "![Some of the images, one row for each class](grid.png)"
_UNITS = {
    Unit.image: "one image. Somebody with several images among them is protected less than these numbers say",
    Unit.user: "one person with all their images, however many they are",
}


def class_names(samples: SampleSet, classes: list[str]) -> list[str]:
    """Of the labels, which are public; of samples without classes, one for all."""
    return classes if samples.num_classes == len(classes) else ["image"]


def features(classes: list[str]) -> list[dict[str, Any]]:
    """As `datasets` reads them from a card."""
    names = {str(number): name for number, name in enumerate(classes)}
    return [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": {"class_label": {"names": names}}}]


def header(
    name: str,
    classes: list[str],
    size: int,
    pattern: str | None = None,
    with_features: bool = True,
    licence: str | None = None,
) -> str:
    """The YAML at the top. `pattern`: of the files that `datasets` reads; without it, of none."""
    task = "image-classification" if len(classes) > 1 else "unconditional-image-generation"
    values = {
        "pretty_name": name,
        "task_categories": [task],
        "size_categories": [size_category(size)],
        "tags": ["synthetic", "differential-privacy"],
        **({"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": pattern}]}]} if pattern else {}),
        **({"dataset_info": {"features": features(classes)}} if with_features else {}),
    }
    line = LICENCE if licence is None else yaml.safe_dump({"license": licence})
    return f"---\n{line}{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def classifier_header(name: str) -> str:
    """The YAML at the top of a classifier's card."""
    values = {"model_name": name, "pipeline_tag": "image-classification", "tags": ["differential-privacy"]}
    return f"---\n{LICENCE}{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def without_header(card: str) -> str:
    """A card without the YAML at its top, if it has one."""
    return card[card.index("\n---\n", 3) + 5 :] if card.startswith("---\n") else card


def size_category(size: int) -> str:
    """Hugging Face's name for it.

    >>> size_category(3000), size_category(999), size_category(2_000_000)
    ('1K<n<10K', 'n<1K', '1M<n<10M')
    """
    steps = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    place = min(max(0, math.floor(math.log10(max(size, 1))) - 2), len(steps) - 1)
    return "n<1K" if place == 0 else f"{steps[place - 1]}<n<{steps[place]}"


def title(document: dict[str, Any]) -> str:
    what = "An image classifier" if "classifier" in document else "Synthetic images"
    return _line(f"{what}: {document['dataset']}, by {document['method']}")


def description(document: dict[str, Any], made: Made) -> str:
    """A paragraph, for README.md and croissant.json."""
    whose = f"with differential privacy from private images: {document['guarantee_is_about']}"
    if isinstance(made, ReleasedClassifier):
        of = f"for {_images(*made.shape)}; its {len(made.classes)} classes are {', '.join(made.classes)}"
        return _line(f"A {made.name.title} {of}. It was trained {whose}. There are no synthetic images here.")
    classes = f" in {len(document['classes'])} classes" if len(document["classes"]) > 1 else ""
    how = f"made {whose}" if document["mechanisms"] else "made without any private image"
    return _line(f"{len(made):,} synthetic {_images(*made.images.shape[1:])}{classes}, {how}.")


def _images(height: int, width: int, channels: int) -> str:
    return f"{'colour' if channels == 3 else 'grey'} images of {height} × {width} pixels"


def card(document: dict[str, Any], made: Made, told: str) -> str:
    """`document`: the certificate; `told`: how the method makes what is released (`Method.how_made`)."""
    one, name = isinstance(made, ReleasedClassifier), title(document)
    sections = {
        "What it was made from" if one else "What they were made from": _origin(document, told),
        PROTECTION: _protection(document),
        "What was taken as public": _public(document),
        "What it is not good for" if one else "What they are not good for": _limits_of_classifier() if one else _limits(),
        "How to use and check it" if one else USE: _use_of_classifier() if one else _use(),
    }
    text = "\n".join(f"## {heading}\n\n{body}\n" for heading, body in sections.items())
    start = classifier_header(name) if isinstance(made, ReleasedClassifier) else header(name, document["classes"], len(made))
    picture = "" if one else f"{PICTURE}\n\n"
    return f"{start}\n# {name}\n\n{description(document, made)}\n\n{picture}{text}"


def _line(text: str) -> str:
    """A name of a class may have line breaks, and would start a heading."""
    return " ".join(text.split())


def _origin(document: dict[str, Any], told: str) -> str:
    private = document["guarantee_is_about"] if document["mechanisms"] else "none"
    lines = [f"- Private images: {_line(private)}.", f"- Method: `{document['method']}`. {told}".rstrip()]
    if document["public_model"]:
        lines.append(f"- Public model: `{document['public_model']}`.")
    lines += [f"- Public files, by sha256 in `privacy.json`: `{one['name']}`." for one in document["public_inputs"]]
    return "\n".join(lines)


def _protection(document: dict[str, Any]) -> str:
    unit = Unit(document["unit"])
    if not document["mechanisms"]:
        return "Nothing was read of the private images, so these tell nothing about them (ε = 0)."
    epsilon, delta = document["epsilon"], document["delta"]
    parts = [
        f"Differential privacy with ε = {format_epsilon(epsilon)} and δ = {delta:g}. What is protected is {_UNITS[unit]}.",
        f"It bounds what these files can tell about any one {unit.value}. Whatever is computed from them, a result that has "
        f"probability p without that {unit.value} among the private data has at most e^ε · p + δ with it, and the other way "
        f"round; e^ε is {_times(epsilon)}. This holds whatever else somebody knows, now or later, as long as the noise stays "
        f"secret. Other releases of the same private data add to what is known.",
        *([_selection(document["selection"])] if "selection" in document else []),
        in_words(document["risk"], unit),
        *([f"**Caution:** {document['caution']}."] if "caution" in document else []),
        "Every use of the private images, with its noise, is listed in `privacy.json`.",
    ]
    return "\n\n".join(parts)


def _selection(told: dict[str, Any]) -> str:
    scored = "with noise on that number" if told["score_mechanism"] else "which are no private ones"
    return (
        f"They are the best of several attempts with {told['number_of_candidates']} settings. How many attempts there were is a "
        f"secret: the number was drawn at random, {told['expected_runs']:.3g} being its mean, and so was the setting of each. "
        f"The attempts were compared by one score, {told['score']}, {scored}. ε pays for all of them, and not for this one alone."
    )


def _times(epsilon: float) -> str:
    """Rounded up."""
    factor = math.exp(min(epsilon, 700))
    return f"{math.ceil(factor):,}" if 100 <= factor < 1e9 else f"{rounded_up(factor, 3 if factor < 100 else 2):g}"


def _public(document: dict[str, Any]) -> str:
    lines = [f"- {_line(assumption)}" for assumption in document["public_by_assumption"]]
    chosen = "So was the choice of the settings" + (", but for the one that is told of above" if "selection" in document else "")
    told = (
        f"These were taken as known to everybody, and are not protected. {chosen}: where "
        "several settings were tried on the same private images and the best was kept, that has a cost that ε does not show."
    )
    return "\n".join([told, "", *lines])


def _limits() -> str:
    return (
        "- Statements about single people or images. No image is meant to be anybody's: a detail in one is no finding.\n"
        "- Rare things. What only few private images have is lost in the noise, or looks like something else.\n"
        "- Counting. How many images a class has here, and how often two things go together, may differ from the private data.\n"
        "- The last test. What was trained on these images has to be tested on real ones before anybody relies on it; for "
        "decisions about people, as in medicine, that is not optional."
    )


def _limits_of_classifier() -> str:
    return (
        "- Other images than those it was trained on. Of other devices, places or people, it may be wrong more often, and "
        "does not say so.\n"
        "- Rare things. What only few private images have is lost in the noise, and whoever is rare among them is more often "
        "classified wrongly.\n"
        "- Probabilities. Its outputs order the classes; how sure it is was not checked.\n"
        "- The last test. It has to be tested on real images before anybody relies on it; for decisions about people, as in "
        "medicine, that is not optional."
    )


def _use_of_classifier() -> str:
    return (
        "    from models.classifiers.released import ReleasedClassifier\n"
        '    classifier = ReleasedClassifier.load("FOLDER")      # with the program that made this release\n'
        "    numbers = classifier.classify(images)               # uint8 [N, H, W, C] to int64 [N], of classifier.classes\n\n"
        "`classifier.safetensors` has the weights of the network that `classifier.json` describes. `privacy.json` is the "
        "certificate, with the sha256 of every other file: `python -m scripts.verify release=FOLDER` compares them and computes "
        "ε again."
    )


def _use() -> str:
    return (
        "    import numpy as np\n"
        '    samples = np.load("samples.npz")      # samples["images"] uint8 [N, H, W, C], samples["labels"] int64 [N]\n\n'
        "(More than 100,000 images are in `samples_00000.npz`, …) `privacy.json` is the certificate, with the sha256 of every "
        "other file. With the program that made this release, `python -m scripts.verify release=FOLDER` compares them and "
        "computes ε again, and `python -m scripts.export release=FOLDER to=… format=parquet` writes other forms."
    )


def use_of_export() -> str:
    """In place of how a release is read, in an export of it."""
    return (
        '    import datasets\n    images = datasets.load_dataset("FOLDER")\n\n'
        "These files were written from a release. `privacy.json` repeats its certificate, with the sha256 of these files in "
        "place of those of the release. With the program that made them, `python -m scripts.verify release=FOLDER` compares "
        "them and computes ε again."
    )
