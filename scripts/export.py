"""A release in the forms that other tools read: `datasets.load_dataset(FOLDER)` loads each of them.

    python -m scripts.export release=runs/…/release to=my_set format=imagefolder    # train/CLASS/00000000.png
    python -m scripts.export release=runs/…/release to=my_set format=parquet        # data/train-00000-of-00001.parquet
    python -m scripts.export release=runs/…/more_samples to=my_set format=webdataset shard=50000
    python -m scripts.export release=… to=… format=parquet license=cc-by-4.0        # which the card then names

Pictures are PNG, and classes go by name. The card goes with them, as README.md, and so does the certificate, with the sha256 of
these files in place of those of the release, and of the certificate of the release: `scripts.verify` checks an export too, and
`scripts.sign` signs one. Nothing is spent. Images are read shard by shard, so there may be more than memory holds; `shard` is how
many a file of Parquet or a tar has. A killed export leaves .FOLDER.exporting beside it, and starts anew.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

from conf.help import run_script
from data import exports
from data.samples import SampleFileError, SampleSet
from data.shards import sample_files
from disk import sha256_of, write_json, write_whole
from errors import reject_unless, require, unusable
from pipeline.card import CARD, PICTURE, USE, header, title, use_of_export, without_header
from privacy.inherited import CERTIFICATE
from privacy.signing import SIGNATURE
from scripts.verify import read_certificate
from store.seal import altered, sealed
from tracking.progress import progress


class Format(Enum):
    imagefolder = "imagefolder"
    parquet = "parquet"
    webdataset = "webdataset"


WRITERS: dict[Format, tuple[exports.Writer, str]] = {  # and where its files lie
    Format.imagefolder: (exports.imagefolder, "train/**"),
    Format.parquet: (exports.parquet, "data/train-*.parquet"),
    Format.webdataset: (exports.webdataset, "data/train-*.tar"),
}


@dataclass
class Exporting:
    release: str = MISSING
    to: str = MISSING
    format: Format = MISSING
    shard: int = 10_000
    license: str | None = None  # of the card, by Hugging Face's name for it


def main(arguments: list[str]) -> None:
    # Setup
    settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Exporting), OmegaConf.from_cli(arguments)))
    require(settings.shard >= 1, "shard", settings.shard, "1 or more")
    release, to = Path(settings.release), Path(settings.to)
    document, files = _readable(release)
    reject_unless(not to.exists() or (to.is_dir() and not any(to.iterdir())), "to", to, "it is not empty; give another folder")
    reject_unless(release.resolve() not in (to.resolve(), *to.resolve().parents), "to", to, "a release stays as it is certified")
    try:
        classes, total = document["classes"], exports.count(files)
    except SampleFileError as error:
        raise unusable("release", release, str(error)) from error
    stated = document.get("num_samples", total)  # where digests are kept, of these samples
    whole = "files" not in document or total == stated
    reject_unless(whole, "release", release, f"it holds {total:,} samples, and {stated} are certified")
    write, pattern = WRITERS[settings.format]

    # Run
    partial = to.resolve().with_name(f".{to.resolve().name}.exporting")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with progress(f"writing {settings.format.value}", total) as advance:
            write(_told(exports.rows(files), advance), total, partial, classes, settings.shard)
    except SampleFileError as error:
        raise unusable("release", release, str(error)) from error
    names = exports.folder_names(classes) if settings.format is Format.imagefolder else classes
    with_features = settings.format is not Format.webdataset  # whose columns are those of its files
    head = header(title(document), names, total, pattern, with_features, settings.license)
    write_whole(partial / CARD, _card(release, head, document))
    if "files" in document:  # else nobody compared the samples with their certificate, and nobody shall think so
        document["exported"] = {"of_certificate": sha256_of(release / CERTIFICATE), "format": settings.format.value}
        document["files"] = sealed(partial)
    write_json(partial / CERTIFICATE, document)
    if to.exists():
        to.rmdir()
    os.replace(partial, to)

    # Report
    print(f"{total:,} images in {to}: datasets.load_dataset({str(to)!r})")
    if "files" not in document:
        print("its certificate names no files, so scripts.verify does not pass, and scripts.sign refuses it")
    if (release / SIGNATURE).exists():
        print(f"the signature of the release is not of these files: python -m scripts.sign release={to} key=… signs them")


def _readable(release: Path) -> tuple[dict[str, Any], list[Path]]:
    """The certificate, with names for all classes, and the files of samples. InputError where nothing may be shared."""
    document, files = read_certificate(release), sample_files(release)
    reject_unless(document.get("private") is True, "release", release, f"it is not private: {document.get('reason')}")
    reject_unless(bool(files), "release", release, "it holds no samples")
    wrong = altered(release, document) if "files" in document else []
    reject_unless(not wrong, "release", release, f"it is not the one that is certified: {'; '.join(wrong)}")
    try:
        classes = SampleSet.load(files[0]).num_classes
    except SampleFileError as error:
        raise unusable("release", release, str(error)) from error
    if len(document.get("classes", [])) != classes:  # of a version that did not keep them
        document["classes"] = [str(number) for number in range(classes)]
    return document, files


def _told(rows: Any, advance: Any) -> Any:
    for row in rows:
        yield row
        advance(1)


def _card(release: Path, head: str, document: dict[str, Any]) -> str:
    """The words of the release's card, or a title, without the picture and with how to read these files."""
    place = release / CARD
    words = without_header(place.read_text()) if place.exists() else f"\n# {title(document)}\n"
    return head + words.replace(f"{PICTURE}\n\n", "").partition(f"\n## {USE}\n")[0] + f"\n## {USE}\n\n{use_of_export()}\n"


if __name__ == "__main__":
    run_script(main, __doc__)
