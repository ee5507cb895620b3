"""How far a part of a run is, on standard error: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tracking import ranks

Advance = Callable[[int], None]
EVERY = 60.0  # seconds between two lines
console = Console(stderr=True, quiet=ranks.rank() != 0)


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """`with progress("PE", 10) as advance: advance(1)`"""
    with (_bar if console.is_terminal else _lines)(description, total) as advance:
        yield advance


@contextmanager
def _bar(description: str, total: int) -> Iterator[Advance]:
    columns = TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(description, total=total)

        def advance(count: int = 1) -> None:
            bar.advance(task, count)

        yield advance


@contextmanager
def _lines(description: str, total: int) -> Iterator[Advance]:
    """For a log. A part of less than a minute has one line: done."""
    done, told = 0, time.monotonic()

    def advance(count: int = 1) -> None:
        nonlocal done, told
        done += count
        if time.monotonic() - told >= EVERY:
            told = time.monotonic()
            of = f" of {total:,}" if total else ""  # of a file whose size nobody told
            console.print(f"{description}: {done:,}{of}", highlight=False, markup=False, soft_wrap=True)

    yield advance
    console.print(f"{description}: done", highlight=False, markup=False, soft_wrap=True)
