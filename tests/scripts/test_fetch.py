"""scripts.fetch against a server on this machine, which can be cut off; and that runs fetch nothing."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.help import run_script
from models.hosted import CLIP, HOSTED, HUB, IMAGENET64_COND, IMAGENET64_UNCOND, INCEPTION, STABLE_DIFFUSION, Hosted
from scripts import fetch
from tests.command import call, composed_model
from tests.rejects import ANY, assert_refused, rejects

WEIGHTS = np.random.default_rng(0).bytes(3 * fetch.MIB + 5)
CONFIG = b"{}\n"


@dataclass
class Hub:
    """What a server has and does, and what it was asked for."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    cut: int | None = None  # bytes of a body, after which the connection ends
    ranges: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)


@pytest.fixture
def hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(files={"/clip/weights.bin": WEIGHTS, "/clip/config.json": CONFIG})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers["Range"]
            hub.asked.append((self.path, asked))
            body = hub.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and hub.ranges else 0
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            self.wfile.write(body[start:][: hub.cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # which keeps the proxies of its first call
    yield hub
    server.shutdown()
    server.server_close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def clip(hub: Hub) -> Hosted:
    return replace(CLIP, url=f"{hub.address}/clip", sha256={"weights.bin": digest(WEIGHTS), "config.json": digest(CONFIG)})


@pytest.fixture
def unpublished(hub: Hub) -> Hosted:
    return replace(IMAGENET64_COND, url=f"{hub.address}/clip", sha256={"weights.bin": None})


def failure(model: Hosted) -> str:
    """The one line of a fetch that fails with exit status 1."""
    with pytest.raises(SystemExit) as ended:
        fetch.fetch(model)
    line = ended.value.code
    assert isinstance(line, str)  # which Python prints, and exits with 1
    assert line.startswith("error: ")
    assert "\n" not in line
    return line


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_a_model_is_fetched_whole_and_once(hub, clip, capsys):
    fetch.fetch(clip)
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS
    assert names(clip.place) == {"weights.bin", "config.json"}
    assert str(clip.place) in capsys.readouterr().out
    asked = list(hub.asked)
    fetch.fetch(clip)
    assert hub.asked == asked
    (clip.place / "config.json").unlink()
    fetch.fetch(clip)
    assert hub.asked[len(asked) :] == [("/clip/config.json", None)]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_goes_on_or_starts_again(hub, clip, ranges):
    hub.cut, hub.ranges = 2 * fetch.MIB + 7, ranges
    line = failure(clip)
    assert f"{hub.address}/clip/weights.bin" in line
    assert str(clip.place / "weights.bin") in line
    assert names(clip.place) == {"weights.bin.partial"}  # and not config.json, which a run looks for
    hub.cut = None
    fetch.fetch(clip)
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS
    assert hub.asked[1] == ("/clip/weights.bin", f"bytes={2 * fetch.MIB + 7}-")


def test_one_that_was_killed_after_its_last_byte_is_taken(clip):
    clip.place.mkdir(parents=True)
    (clip.place / "weights.bin.partial").write_bytes(WEIGHTS)
    fetch.fetch(clip)
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS


def test_a_wrong_file_is_deleted_and_told(hub, clip):
    hub.files["/clip/weights.bin"] = b"another"
    line = failure(clip)
    assert digest(b"another") in line
    assert digest(WEIGHTS) in line
    assert names(clip.place) == set()


def test_a_wrong_beginning_is_found(clip):
    clip.place.mkdir(parents=True)
    (clip.place / "weights.bin.partial").write_bytes(b"x" * 100)
    failure(clip)
    fetch.fetch(clip)
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS


def test_another_file_in_its_place_is_left_alone(hub, clip):
    clip.place.mkdir(parents=True)
    (clip.place / "weights.bin").write_bytes(b"mine")
    with rejects(None, ANY, str(clip.place / "weights.bin"), "sha256"):
        fetch.fetch(clip)
    assert (clip.place / "weights.bin").read_bytes() == b"mine"
    assert hub.asked == []


def test_a_file_that_is_not_there_is_told(hub, clip):
    del hub.files["/clip/weights.bin"]
    assert "404" in failure(clip)


def test_without_a_network_a_line_says_what_to_put_where(clip):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    away = replace(clip, url=f"http://127.0.0.1:{port}/clip")
    line = failure(away)
    assert f"http://127.0.0.1:{port}/clip/weights.bin" in line
    assert str(clip.place / "weights.bin") in line


def test_a_digest_that_is_not_known_is_written_down_and_held_to(hub, unpublished, capsys):
    fetch.fetch(unpublished)
    assert digest(WEIGHTS) in capsys.readouterr().out
    note = unpublished.place.with_name("weights.bin.sha256")
    assert note.read_text() == f"{digest(WEIGHTS)}  weights.bin\n"
    asked = list(hub.asked)
    fetch.fetch(unpublished)
    assert hub.asked == asked
    assert digest(WEIGHTS) not in capsys.readouterr().out
    unpublished.place.unlink()
    hub.files["/clip/weights.bin"] = b"another"
    assert digest(WEIGHTS) in failure(unpublished)
    assert not unpublished.place.exists()


def test_without_a_digest_a_download_starts_again(hub, unpublished):
    hub.cut = 100
    failure(unpublished)
    hub.cut = None
    fetch.fetch(unpublished)
    assert unpublished.place.read_bytes() == WEIGHTS
    assert [asked for _, asked in hub.asked] == [None, None]


def test_a_mirror_of_the_hub_is_asked_in_its_place(hub, clip, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{hub.address}/")
    fetch.fetch(replace(clip, url=f"{HUB}/clip"))
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS


def test_a_proxy_is_used(hub, clip, monkeypatch):
    monkeypatch.setenv("http_proxy", hub.address)
    hub.files = {f"http://hub.invalid{path}": data for path, data in hub.files.items()}
    fetch.fetch(replace(clip, url="http://hub.invalid/clip"))
    assert (clip.place / "weights.bin").read_bytes() == WEIGHTS


def test_an_unknown_name_is_refused(monkeypatch, capsys):
    with rejects("NAME", "gpt", "clip"):
        fetch.main(["gpt"])
    with rejects("NAME", None):
        fetch.main([])
    monkeypatch.setattr("sys.argv", ["fetch", "gpt"])
    with pytest.raises(SystemExit) as ended:
        run_script(fetch.main)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_says_what_there_is_from_where_and_to_where():
    listing = fetch._listing()
    for model in HOSTED.values():
        for told in (model.name, model.size, model.licence, model.url, str(model.place)):
            assert told in listing


def test_every_file_is_of_a_fixed_revision_with_a_digest_or_none():
    for model in HOSTED.values():
        assert model.url.startswith("https://")
        if model.url.startswith(HUB):
            assert re.search(r"/resolve/[0-9a-f]{40}$", model.url)
        assert all(known is None or re.fullmatch("[0-9a-f]{64}", known) for known in model.sha256.values())


def test_the_places_are_those_of_the_presets():
    for model in (STABLE_DIFFUSION, IMAGENET64_COND, IMAGENET64_UNCOND):
        assert composed_model(model.takes_it).pretrained == str(model.place)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("model", "setting", "overrides"),
    [
        (STABLE_DIFFUSION, "model.pretrained", ["model=stable_diffusion", "method=public_only", "method.conditional=false"]),
        *(
            (model, "model.pretrained", [model.takes_it, "method=public_only", "method.conditional=false"])
            for model in (IMAGENET64_COND, IMAGENET64_UNCOND)
        ),
        (INCEPTION, "model.inception", ["method.embedding=inception"]),
        (CLIP, "model.clip", ["method.embedding=clip"]),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_run_without_weights_says_how_to_get_them_and_does_not_get_them(model, setting, overrides, tmp_path, monkeypatch):
    reached: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **_: reached.append(address))
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: reached.append(address))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))
    result = call(*overrides, "tuned=none", "eval=none", "device=cpu")
    assert_refused(result, setting, f"`{model.command}`")
    assert reached == []
