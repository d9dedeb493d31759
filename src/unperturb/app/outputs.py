"""Which inputs there are, and where each result goes.

A result is named ``<stem>_<what><suffix>``. It lies beside its input, or in the folder that was named, where trees of
folders are kept; a name with a suffix is one file.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unperturb.atomic import check_place
from unperturb.data import signal
from unperturb.data.listing import check_name, image_files, resolved
from unperturb.data.recording import RAW, SUFFIXES
from unperturb.errors import FileError, UsageError

RESULT = re.compile(r"_(restored|compare|samples?\d*|std|components|uncertainty|report)$")
"""How the stem of a result ends."""


@dataclass(frozen=True)
class Job:
    """One input, the file that its result becomes, and what else is made of it.

    Attributes
    ----------
    source, target
        The input and the result.
    compare
        The picture of before and after, if one is wanted.
    more
        Further results, in the order in which they were asked for.
    """

    source: Path
    target: Path
    compare: Path | None = None
    more: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """All that is written."""
        return [self.target, *([] if self.compare is None else [self.compare]), *self.more]


def plan(
    inputs: tuple[Path, ...],
    output: Path | None,
    what: str,
    suffix: str | None = None,
    *,
    compare: bool = False,
    more: Sequence[tuple[str, str | None]] = (),
    overwrite: bool = False,
    resume: bool = False,
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
    compare
        Whether a picture of before and after is to lie beside each result, as ``<result>_compare.png``.
    more
        Further results of each input: how their stems end, and their suffixes where these are not that of the first.
    overwrite
        Whether results may replace files.
    resume
        Whether to leave out inputs whose results are all there already; there may be none left.

    Raises
    ------
    UsageError
        Where several results would go to one file.
    FileError
        Where there is no input, or a result is there already.
    """
    found = [(file, root) for root in inputs for file in (_images(root) if _is_folder(root) else [root])]
    files = list({resolved(file): (file, root) for file, root in reversed(found)}.values())[::-1]  # each file once
    if not files:
        raise FileError(f"there are no images in {', '.join(map(str, inputs))}; signals are named one by one")
    for file, _ in files:
        check_name(file)
    one_file = output is not None and bool(output.suffix) and not _is_folder(output)
    kinds = signal.SUFFIXES if files[0][0].suffix.lower() in signal.SUFFIXES else SUFFIXES
    if one_file and output is not None and output.suffix.lower() not in kinds:
        raise UsageError(f"{output} names a file of a kind that is not written here; use {', '.join(kinds)}")
    if suffix in SUFFIXES and kinds is signal.SUFFIXES:
        raise UsageError(f"--format is of images, and {files[0][0]} is a signal")
    if one_file and len(files) > 1:
        raise UsageError(f"{len(files)} files cannot go to the one file {output}; give a folder")
    if one_file and more:
        raise UsageError(f"{len(more) + 1} results cannot go to the one file {output}; give a folder")
    if one_file and suffix is not None:
        raise UsageError(f"{output} says the format by its suffix; give either that or --format")
    jobs = [Job(file, _target(file, root, output, what, suffix, one_file=one_file)) for file, root in files]
    jobs = [
        replace(job, more=tuple(_target(file, root, output, end, kind or suffix, one_file=False) for end, kind in more))
        for job, (file, root) in zip(jobs, files, strict=True)
    ]
    if compare:
        jobs = _with_comparisons(jobs)
    _check(jobs, overwrite=overwrite or resume)
    jobs = [job for job in jobs if not (resume and all(_is_there(file) for file in job.files))]
    _check_places(jobs)
    return jobs


def check_not_input(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse to write in place of a file that is read, named itself or by its folder.

    Raises
    ------
    UsageError
        Where that would be done.
    """
    target, kinds = resolved(output), (*SUFFIXES, *RAW, *signal.SUFFIXES)
    for place in map(resolved, inputs):
        inside = place in target.parents and target.suffix.lower() in kinds
        if target.is_file() and (target == place or inside):
            raise UsageError(f"the input {output} would be replaced by a result; give another output")


def _check_places(jobs: list[Job]) -> None:
    """Refuse work of which no result could be written; where some can, the others say so when it is their turn."""
    places = {file.parent: file for job in jobs for file in job.files}
    wrong = []
    for file in places.values():
        try:
            check_place(file)
        except FileError as error:
            wrong.append(error)
    if wrong and len(wrong) == len(places):
        raise wrong[0]


def _is_folder(path: Path) -> bool:
    """Whether there is a folder that can be seen: what cannot be says so when it is opened."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    """Whether there is a file that can be seen."""
    try:
        return path.exists()
    except OSError:
        return False


def _images(folder: Path) -> list[Path]:
    files = image_files(folder)
    stems = {file.stem for file in files}
    return [file for file in files if not _is_result(file.stem, stems)]


def _is_result(stem: str, stems: set[str]) -> bool:
    """Whether a file is a result of an earlier run; by words that people use as well, of one of these files."""
    found = RESULT.search(stem)
    return found is not None and (not found[1].startswith(("sample", "report")) or stem[: found.start()] in stems)


def _target(file: Path, root: Path, output: Path | None, what: str, suffix: str | None, *, one_file: bool) -> Path:
    if one_file and output is not None:
        return output
    folder = file.parent
    if output is not None:
        folder = output / file.parent.relative_to(root) if _is_folder(root) else output
    own = ".tiff" if file.suffix.lower() in RAW else file.suffix
    return folder / f"{file.stem}_{what}{suffix or own}"


def _with_comparisons(jobs: list[Job]) -> list[Job]:
    """Add where before and after go; results that differ in their suffix alone keep it in the picture's name."""
    stems = Counter(job.target.with_suffix("") for job in jobs)
    named = []
    for job in jobs:
        kind = "" if stems[job.target.with_suffix("")] == 1 else f"_{job.target.suffix[1:]}"
        named.append(replace(job, compare=job.target.with_name(f"{job.target.stem}{kind}_compare.png")))
    return named


def _check(jobs: list[Job], *, overwrite: bool) -> None:
    seen: dict[Path, Path] = {}
    sources = {resolved(job.source) for job in jobs}
    for job in jobs:
        for file in job.files:
            other = seen.setdefault(resolved(file), job.source)
            if other != job.source:
                raise UsageError(f"{other} and {job.source} would both become {file}; put the results into two folders")
            if resolved(file) in sources:
                raise UsageError(f"the input {file} would be replaced by a result; give another output")
    taken = [file for job in jobs for file in job.files if _is_there(file)]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more are" if len(taken) > 1 else " is"
        raise FileError(f"{taken[0]}{more} there already; give --overwrite to replace, or -o for another folder")
