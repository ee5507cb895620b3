"""`make bench` and `make bench-gpu`: their commands are those of docs/performance.md, and the scripts take them."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess

import pytest
import torch

from scripts import bench_dp_step, bench_start
from tests.command import ROOT
from tests.rejects import rejects

COMMAND = re.compile(r"python -m scripts\.(bench_\w+)((?: [\w-]+)*)")


def of_target(target: str) -> list[tuple[str, str]]:
    """Scripts with their arguments."""
    told = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
    text = re.sub(r"\s*\\\n\s*", " ", told.stdout)
    return COMMAND.findall(re.sub("echo '[^']*'", "", text))


def of_page() -> set[tuple[str, str]]:
    lines = (ROOT / "docs" / "performance.md").read_text().splitlines()
    return {(found[1], found[2]) for line in lines if line.startswith("    ") and (found := COMMAND.search(line))}


def test_the_targets_run_what_the_page_quotes():
    commands = of_target("bench") + of_target("bench-gpu")
    assert len(commands) == len(set(commands)) >= 8
    assert set(commands) == of_page()


@pytest.mark.parametrize(("target", "device"), [("bench", "cpu"), ("bench-gpu", "cuda")])
def test_the_scripts_take_the_arguments_of_the_targets(target, device):
    for name, given in of_target(target):
        args = importlib.import_module(f"scripts.{name}").parser().parse_args(shlex.split(given))
        assert getattr(args, "device", "cpu") == device, given


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    for name, given in of_target("bench-gpu"):
        with rejects("device", "cuda", "0 CUDA GPUs"):
            importlib.import_module(f"scripts.{name}").main(shlex.split(given))


def test_a_mistake_takes_processor_time_here_and_beside(capsys):
    bench_start.main(["--only", "does not exist", "--beside", str(ROOT), "--repetitions", "1"])
    row = re.search(r"^\| a setting that does not exist \| (\S+) \| (\S+) \(", capsys.readouterr().out, re.MULTILINE)
    assert row is not None
    assert float(row[1]) > 0.1
    assert 0.1 < float(row[2]) < 10


def test_another_checkout_is_one_of_this_program(tmp_path):
    with rejects("beside", tmp_path):
        bench_start.main(["--beside", str(tmp_path)])


def test_gradients_and_whole_steps_are_compared_at_toy_size(capsys):
    sizes = ["--views", "2", "--step-examples", "1", "--augmults", "1", "2", "--repetitions", "2"]
    bench_dp_step.main(["--model", "digits_unet", "--device", "cpu", *sizes])
    out = capsys.readouterr().out
    assert len(re.findall(r"^\| [12], [12] \|", out, re.MULTILINE)) == 3
    assert "processor" in out
