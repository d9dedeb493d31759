"""Work through many files: one that fails is named and does not stop the others."""

import time
import traceback
from collections.abc import Callable
from typing import Any

import click

from unperturb.app.outputs import Job
from unperturb.app.progress import progress_line
from unperturb.errors import UnperturbError

Told = dict[str, Any]


def run_batch(jobs: list[Job], work: Callable[[int, Job], Told]) -> tuple[list[Told], list[dict[str, str]]]:
    """Do each job, ``work(number, job)``; return what the good ones told, and the failures with their reasons.

    Failures are named on standard error as they happen. A mistake of the program's own is a failure of that file, too.
    """
    results: list[Told] = []
    failures: list[dict[str, str]] = []
    for number, job in enumerate(jobs):
        try:
            results.append(work(number, job))
        except Exception as error:  # a mistake of this program's own must not stop the other files either
            known = isinstance(error, UnperturbError)
            reason = str(error) if known else f"{type(error).__name__}: {error}"
            context = click.get_current_context(silent=True)
            if context is not None and context.find_root().params.get("debug"):
                traceback.print_exc()
            reason = reason if str(job.source) in reason else f"{job.source}: {reason}"
            click.echo(f"unperturb: {reason}", err=True)
            failures.append({"input": str(job.source), "error": reason})
    return results, failures


def run_files(
    title: str, jobs: list[Job], work: Callable[[Job, Callable[[int, int], None]], Told]
) -> tuple[list[Told], list[dict[str, str]], float]:
    """Do each job, ``work(job, progress)``, under a progress line; return also the seconds that it all took."""
    start = time.monotonic()
    with progress_line(title) as show:

        def one(number: int, job: Job) -> Told:
            def progress(done: int, total: int) -> None:
                # A file counts a thousand, so that the parts of a large one move the line.
                show(1000 * number + 1000 * done // total, 1000 * len(jobs), job.source.name)

            return work(job, progress)

        results, failures = run_batch(jobs, one)
    return results, failures, time.monotonic() - start


def exit_code(results: list[Any], failures: list[Any]) -> int:
    """Return 0 where all is done, 3 where some of it is, 1 where nothing is."""
    if not failures:
        return 0
    return 3 if results else 1


def say_model(result: Told, key: str = "model") -> None:
    """Say by which model, and why, where that was found out."""
    if key in result:
        click.echo(f"unperturb: {result['input']}: by {result[key]}", err=True)
