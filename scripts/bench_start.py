"""What it takes to be told something: processor seconds of commands that train nothing, each in a new process.

    python -m scripts.bench_start                       # a plan of each kind, and a mistake
    python -m scripts.bench_start --beside FOLDER       # alternating with those of another checkout of this program

Most of it is imports. Prints Markdown: medians of processor time; with another checkout median and range of paired ratios, too.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

from conf.help import run_script
from errors import reject_unless, require
from tracking.environment import environment, format_environment

HERE = Path(__file__).parents[1]
COMMANDS = {  # and their exit status
    "a plan of `pe`": (["plan_only=true"], 0),
    "a plan of `dp_moments`": (["plan_only=true", "method=dp_moments"], 0),
    "a plan of `dp_diffusion`": (["plan_only=true", "method=dp_diffusion"], 0),
    "a setting that does not exist": (["nothing=0"], 2),
}


def main(arguments: list[str]) -> None:
    args = parser().parse_args(arguments)
    beside = args.beside and Path(args.beside).resolve()
    require(beside is None or (beside / "run.py").exists(), "beside", beside, "a folder with run.py")
    require(args.repetitions >= 1, "repetitions", args.repetitions, "1 or more")
    print(f"{format_environment(environment())}\n")
    print("| | processor seconds | of the other's |" if beside else "| | processor seconds |")
    print("| --- | ---: | ---: |" if beside else "| --- | ---: |")
    for name, (command, status) in COMMANDS.items():
        if args.only not in name:
            continue
        here, ratios = [], []
        for _ in range(args.repetitions):
            here.append(seconds(HERE, command, status))
            if beside:
                ratios.append(here[-1] / seconds(beside, command, status))
        told = f" {median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f}) |" if beside else ""
        print(f"| {name} | {median(here):.1f} |{told}", flush=True)


def seconds(folder: Path, command: list[str], status: int) -> float:
    """Of the processor: of one process and its own children. InputError where it does not end with this exit status."""
    before, program = _of_children(), folder / "run.py"
    done = subprocess.run([sys.executable, str(program), *command], cwd=folder, capture_output=True, text=True, check=False)
    last = (done.stderr.strip() or "nothing was said").splitlines()[-1]
    reject_unless(done.returncode == status, "beside", folder, f"{' '.join(command)} ended with {done.returncode} there ({last})")
    return _of_children() - before


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m scripts.bench_start", description=__doc__)
    made.add_argument("--beside", metavar="FOLDER", help="of another checkout")
    made.add_argument("--only", default="", metavar="TEXT", help="rows whose name has it")
    made.add_argument("--repetitions", type=int, default=5)
    return made


if __name__ == "__main__":
    run_script(main, __doc__)
