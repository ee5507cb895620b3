"""One HTML file out of page.html, page.css, the scripts beside it, Plotly, and the runs as JSON.

The data are in script elements that no browser runs, one for each run, parsed when they are looked at; nothing of a run is ever
part of the markup. The page's policy lets it load nothing from anywhere, and run the scripts whose hashes it names alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = ("format.js", "comparison.js", "table.js", "plots.js", "grids.js", "details.js", "page.js")  # in order


def page(about: dict[str, Any], rows: Iterable[dict[str, Any]], details: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The parts of the file, in order. `about` is what the page says of itself; details are in the order of the rows."""
    import plotly.offline

    script, plotly_js = "\n".join((HERE / name).read_text() for name in SCRIPTS), plotly.offline.get_plotlyjs()
    assert "</script" not in script.lower() + plotly_js.lower()
    allowed = f"{_hash(script)} {_hash(plotly_js)}"
    parts = {
        "policy": f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {allowed}",
        "style": (HERE / "page.css").read_text(),
        "plotly": plotly_js,
        "script": script,
    }
    for piece in re.split(r"(\{\{\w+\}\})", (HERE / "page.html").read_text()):
        if piece == "{{data}}":
            shown = [{key: value for key, value in row.items() if key != "settings"} for row in rows]
            yield _data("runs", {**about, "rows": shown})
            for number, run in enumerate(details):
                yield _data(f"run-{number}", run)
        else:
            yield parts[piece[2:-2]] if piece.startswith("{{") else piece


def _data(name: str, value: Any) -> str:
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>\n'


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
