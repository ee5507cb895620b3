"""Public models that others trained and host, downloaded to where runs look for them, and checked by sha256.

    python -m scripts.fetch inception-fid
    python -m scripts.fetch stable-diffusion-v1-5 clip
    HF_ENDPOINT=https://… python -m scripts.fetch clip      # from a mirror of the Hugging Face hub

Run it in the folder that runs are started in. Each file is of a fixed revision, and appears once its sha256 is right. One that
is there is not downloaded again, and a download that was killed goes on. Where no published sha256 of a file is known, the one
that it came with is written to FILE.sha256 and held to the next time. Proxies are those of http_proxy and https_proxy. Exit
status 1 where a download failed, 2 where a NAME is unknown or another file is in the place of one.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from conf.help import run_script
from disk import sha256_of, sync_folder, write_whole
from errors import reason, require, unusable_file
from models.hosted import HOSTED, HUB, Hosted
from tracking.progress import progress

MIB = 2**20
TIMEOUT = 60  # seconds without a byte


def main(names: list[str]) -> None:
    known = bool(names) and HOSTED.keys() >= set(names)
    require(known, "NAME", " ".join(names) or None, f"one or more of {', '.join(HOSTED)}")
    for name in names:
        fetch(HOSTED[name])


def fetch(model: Hosted) -> None:
    """All of its files. SystemExit with one line where one cannot be had, InputError where another file is in its place."""
    mirror = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    for file, path in model.paths.items():
        _fetch_file(f"{model.url}/{file}".replace(HUB, mirror, 1), path, model.sha256[file])
    print(f"{model.name} is in {model.place}, for {model.takes_it}")


def _fetch_file(url: str, path: Path, published: str | None) -> None:
    note = path.with_name(f"{path.name}.sha256")
    noted = note.read_text().split()[0] if published is None and note.exists() else None
    expected = published or noted
    if path.exists():
        found = sha256_of(path)
        if expected not in (None, found):
            raise unusable_file(path, f"its sha256 is {found}, not {expected}; move it away, and fetch again")
    else:
        found = _download_checked(url, path, expected)
    if expected is None:
        write_whole(note, f"{found}  {path.name}\n")
        print(f"{path}: no published sha256 is known; {found} is what it has, and {note.name} says so for the next time")


def _download_checked(url: str, path: Path, expected: str | None) -> str:
    """Its sha256. The file is at `path` then, whole."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        if expected is None:  # nothing would show that the rest is of another file
            partial.unlink(missing_ok=True)
        _download(url, partial)
        found = sha256_of(partial)
    except (OSError, HTTPException) as error:
        again = "give the same command again, or get that file elsewhere"
        raise SystemExit(f"error: {url} cannot be downloaded ({reason(error)}); {again} and put it at {path}") from None
    if expected not in (None, found):
        partial.unlink()
        raise SystemExit(f"error: {url} came with the sha256 {found}, not {expected}; it is deleted again")
    os.replace(partial, path)
    sync_folder(path.parent)
    return found


def _download(url: str, partial: Path) -> None:
    """To the end of a file whose beginning may be there."""
    there = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "dp-image-synthesis"} | ({"Range": f"bytes={there}-"} if there else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        if there and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:  # it was killed after the last byte
            return
        raise
    goes_on = response.status == HTTPStatus.PARTIAL_CONTENT  # or the server sends all of it
    there = there if goes_on else 0
    stated = response.headers["Content-Length"]
    whole = None if stated is None else there + int(stated)
    with response, partial.open("ab" if goes_on else "wb") as file:
        with progress(f"{partial.stem}, MiB", -(-(whole or 0) // MIB)) as advance:
            advance(there // MIB)
            while block := response.read(MIB):
                file.write(block)
                advance(1)
        file.flush()
        os.fsync(file.fileno())
    if whole is not None and (size := partial.stat().st_size) != whole:
        raise ConnectionError(f"the connection ended after {size:,} of {whole:,} bytes")


def _listing() -> str:
    lines = []
    for model in HOSTED.values():
        unchecked = "" if all(model.sha256.values()) else "; no published sha256 is known"
        lines += [f"  {model.name:<38}{model.what}: {model.size}, {model.licence}{unchecked}"]
        lines += [f"{'':40}from {model.url}", f"{'':40}to {model.place}, for {model.takes_it}"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, f"{__doc__}\n{_listing()}")
