"""Progress bars on standard error, where it is a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tracking import ranks

Advance = Callable[[int], None]
console = Console(stderr=True, quiet=ranks.rank() != 0)


@contextmanager
def progress(description: str, total: int) -> Iterator[Advance]:
    """`with progress("PE", 10) as advance: advance(1)`"""
    columns = TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(count: int = 1) -> None:
            bar.advance(task, count)

        yield advance
    if not console.is_terminal:
        console.print(f"{description}: done", highlight=False)
