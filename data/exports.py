"""A release in the forms of other tools: a folder of pictures, Parquet as the library `datasets` writes it, tars of WebDataset.

Pictures are PNG, so nothing is lost. One file of samples is in memory at a time.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from data.samples import SampleSet, read_labels
from errors import unusable

Row = tuple[int, bytes, int]  # number, PNG, label
Writer = Callable[[Iterator[Row], int, Path, Sequence[str], int], None]  # rows, how many, where, classes, rows in a file
_GROUP = 1000  # rows of Parquet that are in memory together


def count(files: Sequence[Path]) -> int:
    """The number of images, from the labels alone. SampleFileError where a file is damaged."""
    return sum(len(read_labels(file)) for file in files)


def rows(files: Sequence[Path]) -> Iterator[Row]:
    """Each image of a release, in the order of its files. SampleFileError where a file is damaged."""
    number = 0
    for file in files:
        samples = SampleSet.load(file)
        for image, label in zip(samples.images, samples.labels, strict=True):
            yield number, png(image), int(label)
            number += 1


def png(image: np.ndarray) -> bytes:
    """Of uint8 [H, W, 1 or 3]."""
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(content, "PNG")
    return content.getvalue()


def folder_names(classes: Sequence[str]) -> list[str]:
    """The names of classes as those of folders: as they are, where every system takes them and none differ by case alone."""
    usable = [
        re.fullmatch(r"\w([\w .,()+-]*[\w)+-])?", name) and not name.startswith("_") and len(name) < 100 for name in classes
    ]
    if all(usable) and len({name.casefold() for name in classes}) == len(classes):
        return list(classes)
    words = [re.sub("[^A-Za-z0-9]+", "-", name).strip("-")[:60] for name in classes]
    return [f"{number:03d}-{word}".rstrip("-") for number, word in enumerate(words)]


def imagefolder(rows: Iterator[Row], total: int, folder: Path, classes: Sequence[str], shard: int) -> None:
    """train/CLASS/00000000.png"""
    places = [folder / "train" / name for name in folder_names(classes)]
    for place in places:
        place.mkdir(parents=True)
    for number, content, label in rows:
        (places[label] / f"{number:08d}.png").write_bytes(content)


def parquet(rows: Iterator[Row], total: int, folder: Path, classes: Sequence[str], shard: int) -> None:
    """data/train-00000-of-00002.parquet, with the names of classes in its metadata."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise unusable("format", "parquet", "it needs another package: pip install pyarrow") from error
    features = {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}}
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    schema = pa.schema({"image": image, "label": pa.int64()}, {"huggingface": json.dumps({"info": {"features": features}})})
    files = -(-total // shard)
    (folder / "data").mkdir()
    for file in range(files):
        with pq.ParquetWriter(folder / "data" / f"train-{file:05d}-of-{files:05d}.parquet", schema) as writer:
            left = min(shard, total - file * shard)
            while group := list(islice(rows, min(_GROUP, left))):
                images = [{"bytes": content, "path": f"{number:08d}.png"} for number, content, _ in group]
                writer.write_table(pa.table({"image": images, "label": [label for *_, label in group]}, schema=schema))
                left -= len(group)


def webdataset(rows: Iterator[Row], total: int, folder: Path, classes: Sequence[str], shard: int) -> None:
    """data/train-00000.tar: 00000000.png, the label in 00000000.cls, and label and name in 00000000.json"""
    (folder / "data").mkdir()
    for file in range(-(-total // shard)):
        with tarfile.open(folder / "data" / f"train-{file:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, content, label in islice(rows, shard):
                named = json.dumps({"label": label, "name": classes[label]}).encode()
                for end, part in (("png", content), ("cls", str(label).encode()), ("json", named)):
                    entry = tarfile.TarInfo(f"{number:08d}.{end}")
                    entry.size = len(part)
                    tar.addfile(entry, io.BytesIO(part))
