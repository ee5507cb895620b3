"""One page of all that was rendered at a scale."""

from __future__ import annotations

from pathlib import Path

from disk import write_whole
from scripts.paper.sheet import PAPERS, Kind, every, load
from tracking.environment import environment, format_environment


def write_index(folder: Path, scale: str, arguments: str) -> Path:
    """`folder`/README.md: every table and figure that is in `folder`, and what is not there. `arguments` of make, if any."""
    lines = [
        f"# Tables and figures at scale {scale}",
        "",
        f"`make all-tables SCALE={scale}{arguments}`, rendered with {format_environment(environment())}.",
    ]
    if scale == "smoke":
        lines.append(
            "Every run behind a table or figure, on the embedded 8×8 digits with a small CNN: that they run is what this shows."
        )
        lines.append("Where a picture is marked as holding private images, they are scikit-learn's digits, which are public.")
        lines.append("No number here compares to a paper's, and none of the papers' stands beside one.")
    for paper in PAPERS:
        lines += ["", f"## {PAPERS[paper]}"]
        for kind, owner, number in every():
            if owner != paper:
                continue
            lines += ["", f"### {kind.value.title()} {number}", "", _page(folder, kind, paper, number, scale)]
    path = folder / "README.md"
    write_whole(path, "\n".join(lines) + "\n")
    return path


def _page(folder: Path, kind: Kind, paper: str, number: str, scale: str) -> str:
    page, sheet = folder / f"{paper}_{kind.value}_{number}.md", load(kind, paper, number, scale)
    if page.exists():
        return page.read_text().strip()
    return f"**{sheet.caption}** Not at this scale. {' '.join(sheet.notes)}".strip()
