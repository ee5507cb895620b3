"""Every table and figure of the papers, read once."""

from __future__ import annotations

from scripts.paper.sheet import every, load

SHEETS = [load(kind, paper, number, "paper") for kind, paper, number in every()]
