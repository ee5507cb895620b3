"""Tables beside images, `metadata.csv`, `metadata.jsonl` or `labels.csv`: columns of files, of labels, and perhaps of users."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import reject_unless, unusable_file

TABLES = ("metadata.csv", "metadata.jsonl", "labels.csv")
USUAL_FILES = ("file_name", "filename", "file", "path", "image", "image_id", "id", "name")
USUAL_LABELS = ("label", "labels", "class", "category", "target", "diagnosis", "dx", "finding")


@dataclass(frozen=True)
class Columns:
    """Names of columns; None: one of the usual names."""

    file: str | None = None
    label: str | None = None
    user: str | None = None  # None: there is none


@dataclass(frozen=True)
class Row:
    file: str
    label: str
    user: str | None


def read_rows(where: Path, name: str, text: str, columns: Columns) -> list[Row]:
    """InputError names the line that cannot be used."""
    records = _records(where, name, text)
    header = list(records[0][1]) if records else []
    file = _column(where, name, header, columns.file, USUAL_FILES, "dataset.file_column", "files")
    label = _column(where, name, header, columns.label, USUAL_LABELS, "dataset.label_column", "classes")
    user = columns.user and _column(where, name, header, columns.user, (), "dataset.user_column", "users")
    wanted = [column for column in (file, label, user) if column]
    for line, record in records:
        if None in record:
            raise unusable_file(where, f"line {line} of {name} has more values than there are columns")
        if empty := next((column for column in wanted if record.get(column) is None or not str(record[column]).strip()), None):
            raise unusable_file(where, f"line {line} of {name} has nothing in the column {empty}")
    return [
        Row(str(r[file]).strip(), str(r[label]).strip(), str(r[user]).strip() if user else None)  # plain text, as written
        for _, r in records
    ]


def matched(where: Path, table: str, rows: Sequence[Row], names: Sequence[str]) -> list[tuple[str, Row]]:
    """Each image with its row: by its whole name, else by its last part, or by that without its ending."""
    named: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for form in {PurePosixPath(name).name, PurePosixPath(name).with_suffix("").as_posix(), PurePosixPath(name).stem} - {name}:
            named[form].append(name)
    for name in names:
        named[name] = [name]
    found: dict[str, Row] = {}
    for row in rows:
        path = PurePosixPath(row.file.replace("\\", "/"))
        meant = named.get(path.as_posix()) or [
            name for name in named.get(path.name, []) if _ends_alike(path, PurePosixPath(name))
        ]
        if not meant:
            raise unusable_file(where, f"{row.file} is in {table}, and not among the images")
        if len(meant) > 1:
            raise unusable_file(where, f"{row.file} in {table} names {len(meant)} images; give it with its folder")
        if meant[0] in found:
            raise unusable_file(where, f"{meant[0]} has two rows in {table}")
        found[meant[0]] = row
    if without := min(set(names) - set(found), default=None):
        raise unusable_file(where, f"{without} has no row in {table}")
    return sorted(found.items())


def _ends_alike(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Whether one is the end of the other, but for the ending of the file's name."""
    shared = min(len(one.parts), len(other.parts))
    return one.parts[-shared:-1] == other.parts[-shared:-1]


def _records(where: Path, name: str, text: str) -> list[tuple[int, dict[str, object]]]:
    """Rows by column, with their line numbers."""
    if name.endswith(".jsonl"):
        lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
        try:
            records = [(number, json.loads(line)) for number, line in lines]
        except ValueError as error:
            raise unusable_file(where, f"{name} has a line that is no JSON ({error})") from error
        wrong = next((number for number, record in records if not isinstance(record, dict)), None)
        reject_unless(wrong is None, "dataset.path", where, f"line {wrong} of {name} is no JSON object")
        return records
    dialect: type[csv.Dialect] | csv.Dialect = csv.excel
    first = text.partition("\n")[0]
    if ";" in first and "," not in first:
        dialect = _Semicolons
    if "\t" in first and "," not in first:
        dialect = csv.excel_tab
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), dialect=dialect, strict=True)
        return [(reader.line_num, dict(record)) for record in reader]
    except csv.Error as error:
        raise unusable_file(where, f"{name} is no readable table ({error})") from error


class _Semicolons(csv.excel):
    delimiter = ";"


def _column(where: Path, table: str, header: list[str], wanted: str | None, usual: Sequence[str], key: str, what: str) -> str:
    there = ", ".join(map(str, header)) or "none"
    if wanted is not None:
        reject_unless(wanted in header, key, wanted, f"{table} has the columns {there}")
        return wanted
    lower = {str(column).strip().lower(): column for column in reversed(header)}
    found = next((lower[name] for name in usual if name in lower), None)
    if found is None:
        raise unusable_file(where, f"{table} has the columns {there}; {key} names the one of {what}")
    return found


def in_order(names: set[str]) -> list[str]:
    """Classes: numbers by value, other names by letter."""
    return sorted(names, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
