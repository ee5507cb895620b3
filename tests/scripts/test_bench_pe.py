"""`scripts.bench_pe`: its three parts at toy size, as a reader sees them."""

from __future__ import annotations

import functools

import pytest

from pe import evolution
from scripts import bench_pe


def rows(text: str) -> dict[str, list[str]]:
    """Of the tables in it, by their first cell."""
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in cells}


def test_every_way_to_find_a_neighbour_finds_the_same(capsys):
    bench_pe.votes(private=40, synthetic=30, dim=5)
    table = rows(capsys.readouterr().out)
    assert [table[name][-1] for name in ("plain loop (numpy)", "torch", "faiss")] == ["0"] * 3


def test_the_parts_of_a_round_are_the_whole_round(capsys, monkeypatch):
    monkeypatch.setattr(evolution, "count_votes", evolution.count_votes)  # it is timed in place
    bench_pe.parts_of_a_round("digits_unet", images=10)
    out = capsys.readouterr().out
    shares = {name: float(cells[-1].rstrip("%")) for name, cells in rows(out).items() if cells[-1].endswith("%")}
    assert shares.keys() == {"random", "variation", "embedding", "votes", "all the rest"}
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert "Outside network calls" in out


def test_sampling_is_compared_to_a_plain_loop(capsys, monkeypatch):
    monkeypatch.setattr(bench_pe, "sampling", functools.partial(bench_pe.sampling, images=2))
    bench_pe.main(["--sampling-only", "--precision", "bfloat16", "--repetitions", "2", "--device", "cpu"])
    assert "Sampling 2 images by `digits_unet` in bfloat16 in 20 steps" in capsys.readouterr().out


def test_two_models_are_compared(capsys):
    bench_pe.sampling_beside("digits_unet", "mnist_patches", repetitions=2, images=2)
    table = rows(capsys.readouterr().out)
    assert table["`digits_unet`"][-1] == "1.00 (1.00–1.00)"
    assert table["`mnist_patches`"][0] == "1,150,288"
