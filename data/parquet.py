"""Images in Parquet, as Hugging Face's library datasets saves them: a column of bytes beside one of labels. Needs pyarrow.

An image is `{bytes, path}`, or bytes alone. Names of classes are in the file's metadata (`ClassLabel`), or labels are text or
numbers. Shards are `train-00000-of-00002.parquet` and so on; what stands before the number is the part.
"""

from __future__ import annotations

import bisect
import functools
import io
import json
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from data.decoding import PICTURES, WORKERS, Listing
from data.parts import name_below, part_of_file
from data.tables import USUAL_LABELS, Columns, in_order
from errors import InputError, reason, unusable, unusable_file

IMAGES = ("image", "img", "images", "picture")
_GROUPS_HELD = 4  # groups of rows whose images are in memory at a time


def parquet_splits(where: Path, files: Sequence[Path], columns: Columns) -> dict[str, Listing]:
    """By part: `train` where file names tell no other. Labels are read, and no image."""
    parts: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(files):
        parts[part_of_file(name_below(where, file)) or "train"].append(file)
    tables = {part: [_Table(where, file, columns) for file in files] for part, files in parts.items()}
    texts = {part: [text for table in those for text in table.labels] for part, those in tables.items()}
    named = next((table.class_names for those in tables.values() for table in those if table.class_names), None)
    classes = named or in_order({text for part in texts.values() for text in part})
    number = {name: label for label, name in enumerate(classes)}
    return {part: _listing(where, those, classes, [number[text] for text in texts[part]]) for part, those in tables.items()}


def _listing(where: Path, tables: list[_Table], classes: list[str], labels: list[int]) -> Listing:
    names = [f"{table.name}, row {row}" for table in tables for row in range(len(table.labels))]
    users = None if tables[0].users is None else [user for table in tables for user in table.users or []]
    place = {table.name: table for table in tables}
    held = PICTURES + (_GROUPS_HELD + WORKERS) * max((table.largest_group for table in tables), default=0)
    return Listing.of(where, classes, names, labels, functools.partial(_opened, place), held, users)


@contextmanager
def _opened(tables: dict[str, _Table]) -> Iterator[Any]:
    groups: OrderedDict[tuple[str, int], list[Any]] = OrderedDict()
    lock = threading.Lock()

    def read(name: str) -> IO[bytes]:
        file, _, row = name.rpartition(", row ")
        table = tables[file]
        group, at = table.place(int(row))
        with lock:  # threads read neighbouring rows, so one of them fetches for all
            if (file, group) not in groups:
                groups[file, group] = table.images_of(group)
                while len(groups) > _GROUPS_HELD:
                    groups.popitem(last=False)
            found = groups[file, group][at]
        content = found["bytes"] if isinstance(found, dict) else found
        if not isinstance(content, bytes):
            raise ValueError("it has no bytes of an image")
        return io.BytesIO(content)

    yield read


class _Table:
    """One file: its labels as text, and where its images are."""

    def __init__(self, where: Path, file: Path, columns: Columns):
        try:
            import pyarrow.parquet
        except ImportError as error:
            raise unusable(
                "dataset.path", where, "it is Parquet, which needs the package pyarrow; pip install pyarrow"
            ) from error
        self.file, self.name = file, name_below(where, file).as_posix()  # shards of two folders may share a last name
        try:
            self._parquet = pyarrow.parquet.ParquetFile(file, memory_map=True)
            names = self._parquet.schema_arrow.names
            self._image = next((name for name in IMAGES if name in names), None) or self._bytes_column()
            label = columns.label or next((name for name in USUAL_LABELS if name in names), None)
            if label is None or label not in names:
                problem = f"{file.name} has the columns {', '.join(names)}; dataset.label_column names the one of classes"
                raise unusable_file(where, problem)
            if columns.user is not None and columns.user not in names:
                raise unusable("dataset.user_column", columns.user, f"{file.name} has the columns {', '.join(names)}")
            self.class_names = self._class_names(label)
            values = self._parquet.read([label]).column(label).to_pylist()
            if None in values:
                raise unusable_file(where, f"{file.name} has no {label} in row {values.index(None)}")
            self.labels = [self._text(where, label, row, value) for row, value in enumerate(values)]
            self.users = columns.user and self._users(where, columns.user)
            groups = [self._parquet.metadata.row_group(i) for i in range(self._parquet.num_row_groups)]
        except InputError:
            raise
        except Exception as error:  # a foreign file may make anything of its reader
            raise unusable_file(file, f"it is no readable Parquet file ({reason(error)})") from error
        self._starts = [sum(group.num_rows for group in groups[:i]) for i in range(len(groups))]
        self.largest_group = max((group.total_byte_size for group in groups), default=0)

    def _bytes_column(self) -> str:
        import pyarrow

        binary = (field.name for field in self._parquet.schema_arrow if pyarrow.types.is_binary(field.type))
        found = next(binary, None)
        if found is None:
            raise unusable_file(self.file, f"it has no column of images, such as {', '.join(IMAGES)}")
        return found

    def _users(self, where: Path, column: str) -> list[str]:
        values = self._parquet.read([column]).column(column).to_pylist()
        for row, value in enumerate(values):
            if value is None or value != value or not str(value).strip():
                raise unusable_file(where, f"{self.name} has no {column} in row {row}")
        return [str(value).strip() for value in values]

    def _class_names(self, label: str) -> list[str] | None:
        metadata = (self._parquet.schema_arrow.metadata or {}).get(b"huggingface")
        if metadata is None:
            return None
        feature = json.loads(metadata).get("info", {}).get("features", {}).get(label, {})
        names = feature.get("names")
        return [str(name) for name in names] if names else None

    def _text(self, where: Path, label: str, row: int, value: Any) -> str:
        if self.class_names is None:
            return str(value)
        if type(value) is not int or not 0 <= value < len(self.class_names):
            raise unusable_file(where, f"{self.name} has the {label} {value} in row {row}, and {len(self.class_names)} classes")
        return self.class_names[value]

    def place(self, row: int) -> tuple[int, int]:
        """The group of rows that it is in, and its place there."""
        group = bisect.bisect_right(self._starts, row) - 1
        return group, row - self._starts[group]

    def images_of(self, group: int) -> list[Any]:
        return self._parquet.read_row_group(group, [self._image]).column(self._image).to_pylist()
