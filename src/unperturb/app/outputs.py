"""Which inputs there are, and where each result goes.

A result is named ``<stem>_<what><suffix>``. It lies beside its input, or in the folder that was named, where trees of
folders are kept; a name with a suffix is one file.
"""

from dataclasses import dataclass
from pathlib import Path

from unperturb.data.recording import SUFFIXES, image_files
from unperturb.errors import FileError, UsageError


@dataclass(frozen=True)
class Job:
    """One input, and the file that its result becomes."""

    source: Path
    target: Path


def plan(
    inputs: tuple[Path, ...], output: Path | None, what: str, suffix: str | None = None, *, overwrite: bool = False
) -> list[Job]:
    """List the work to do, refusing what cannot end well before any of it is begun.

    Parameters
    ----------
    inputs
        Files and folders. In folders, the results of earlier runs are left out.
    output
        A file, a folder, or None for beside the inputs.
    what
        Ending of a result's stem: "restored", "std" …
    suffix
        Of the results, where it is to be another than their inputs', such as ".png".
    overwrite
        Whether results may replace files.

    Raises
    ------
    UsageError
        Where several results would go to one file.
    FileError
        Where there is no input, or a result is there already.
    """
    files = [(file, root) for root in inputs for file in (_images(root, what) if root.is_dir() else [root])]
    if not files:
        raise FileError(f"there are no images in {', '.join(map(str, inputs))}")
    one_file = output is not None and output.suffix.lower() in SUFFIXES and not output.is_dir()
    if one_file and len(files) > 1:
        raise UsageError(f"{len(files)} images cannot go to the one file {output}; give a folder")
    jobs = [Job(file, _target(file, root, output, what, suffix, one_file=one_file)) for file, root in files]
    _check(jobs, overwrite=overwrite)
    return jobs


def _images(folder: Path, what: str) -> list[Path]:
    return [file for file in image_files(folder) if not file.stem.endswith((f"_{what}", f"_{what}_compare"))]


def _target(file: Path, root: Path, output: Path | None, what: str, suffix: str | None, *, one_file: bool) -> Path:
    if one_file and output is not None:
        return output
    folder = file.parent
    if output is not None:
        folder = output / file.parent.relative_to(root) if root.is_dir() else output
    return folder / f"{file.stem}_{what}{suffix or file.suffix}"


def _check(jobs: list[Job], *, overwrite: bool) -> None:
    seen: dict[Path, Path] = {}
    for job in jobs:
        other = seen.setdefault(job.target, job.source)
        if other != job.source:
            raise UsageError(f"{other} and {job.source} would both become {job.target}; restore them into two folders")
        if job.target == job.source:
            raise UsageError(f"{job.source} would be replaced by its own result; give another output")
    taken = [job.target for job in jobs if job.target.exists()]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
        raise FileError(f"{taken[0]}{more} there already; give --overwrite to replace, or -o for another folder")
