"""Progress, on standard error: a live line on a terminal, a plain line now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 2.0
"""Seconds before anything is shown: what is done by then needs no progress."""

Show = Callable[[int, int, str], None]


@contextmanager
def progress_line(title: str, every: float = 30.0, *, silent: bool = False) -> Iterator[Show]:
    """Lend ``show(done, total, note)``, which tells how far things are and how long they will take.

    Parameters
    ----------
    title
        What is under way.
    every
        Seconds between lines where standard error is not a terminal.
    silent
        Show nothing: another process does.
    """
    if silent:
        yield _nothing
        return
    if not sys.stderr.isatty():
        yield _plain(title, every)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
               TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))  # fmt: skip
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=False) as bar:
        task = bar.add_task(title, total=None, note="", visible=False)

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note, visible=time.monotonic() - start > PATIENCE)

        yield show


def _nothing(done: int, total: int, note: str = "") -> None:
    """Show nothing."""


def _plain(title: str, every: float) -> Show:
    begin = time.monotonic()
    last, base = begin - every + PATIENCE, (0, begin, 0)

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal last, base
        now = time.monotonic()
        if base[2] != total:  # a new phase, or a run taken up again in its middle
            base = (done, now if base[2] else begin, total)
        if now - last >= every or (done == total and last > begin):
            last = now
            left = ""  # not known before something was done
            if done > base[0]:
                left = f", {clock((now - base[1]) / (done - base[0]) * (total - done))} left"
            sys.stderr.write(f"{title}: {100 * done // max(total, 1)} %{left}  {note}\n")
            sys.stderr.flush()

    return show


def clock(seconds: float) -> str:
    """Return a time span for people: 0:07, 12:30, 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
