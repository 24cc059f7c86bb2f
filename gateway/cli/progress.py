"""Progress on stderr: bars on a terminal, a line per step where there is none, nothing when not wanted."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.cli.output import aside, say

if TYPE_CHECKING:
    from gateway.client import Event

NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress on stderr.")]


@contextlib.contextmanager
def uploading(wanted: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar of bytes sent."""
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=aside(), transient=True) as progress:
        task = progress.add_task("upload", total=None)
        yield lambda sent, total: progress.update(task, completed=sent, total=total)


@contextlib.contextmanager
def compiling(wanted: bool) -> Iterator[Callable[[Event], None] | None]:
    """What the jobs' logs say: the step at hand as a spinner, what is done as lines."""
    if not wanted:
        yield None
        return
    if not sys.stderr.isatty():
        yield lambda event: say(_line(event)) if event.status in ("done", "failed") else None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=aside(), transient=True) as progress:
        task = progress.add_task("compiling", total=None)

        def show(event: Event) -> None:
            if event.status in ("done", "failed"):
                progress.console.print(_line(event), markup=False, highlight=False)
            progress.update(task, description=f"{event.step}: {event.text}"[:100].replace("[", "\\["))

        yield show


def _line(event: Event) -> str:
    mark = "✗" if event.status == "failed" else "✓"
    return f"{mark} job {event.job} {event.step}: {event.text}"
